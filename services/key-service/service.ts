import { ParseError } from '@asterism/errors/errors';
import type { KeyManager } from '@asterism/kms/types';
import type { API } from '@asterism/rpc/gen/keyservice_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import type { AuditLog } from '@asterism/runtime/audit-log';
import type { RateLimiter } from '@asterism/runtime/rate-limiter';
import { Counter, type Registry } from 'prom-client';
import type { Callers } from './callers.ts';
import { checkScope, type Scopes } from './scopes.ts';

/** Keys of disks and volumes have 32 bytes, with integrity 96; nobody has use for more. */
const MAX_LENGTH = 96;
const MAX_ID = 128;

export interface KeyServiceParts {
  readonly keys: KeyManager;
  readonly callers: Callers;
  readonly scopes: Scopes;
  readonly limiter: RateLimiter;
  readonly audit: AuditLog;
  readonly registry: Registry;
}

/** Handlers of kms.API. */
export function keyService({
  keys,
  callers,
  scopes,
  limiter,
  audit,
  registry,
}: KeyServiceParts): Handlers<typeof API> {
  const requests = new Counter({
    name: 'asterism_key_requests_total',
    help: 'Requests for data keys',
    labelNames: ['outcome'],
    registers: [registry],
  });
  return {
    async getDataKey({ dataKeyId, length }, { header, signal, peer }) {
      let caller = 'unknown';
      try {
        caller = await callers.identify(header('authorization'), signal);
        limiter.take(caller);
        if (dataKeyId === '' || dataKeyId.length > MAX_ID)
          throw new ParseError('data_key_id must have 1 to 128 characters');
        if (length < 1 || length > MAX_LENGTH)
          throw new ParseError(`length must be 1 to ${MAX_LENGTH} bytes`);
        checkScope(scopes, caller, dataKeyId);
        const dataKey = await keys.getDek(`key-${dataKeyId}`, length, signal);
        await audit.append({
          event: 'get-data-key',
          outcome: 'granted',
          caller,
          address: peer.address,
          keyId: dataKeyId,
          length,
        });
        requests.inc({ outcome: 'granted' });
        return { dataKey };
      } catch (error) {
        requests.inc({ outcome: 'refused' });
        const reason = (error as { code?: unknown }).code;
        await audit.append({
          event: 'get-data-key',
          outcome: 'refused',
          caller,
          address: peer.address,
          keyId: dataKeyId.slice(0, MAX_ID),
          reason: typeof reason === 'string' ? reason : 'unexpected',
        });
        throw error;
      }
    },
  };
}
