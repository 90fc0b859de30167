import { AsterismError, ParseError } from '@asterism/errors/errors';
import type { KeyManager } from '@asterism/kms/types';
import type { RpcLimits } from '@asterism/rpc/connection-host';
import type { API } from '@asterism/rpc/gen/keyservice_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import type { AuditLog } from '@asterism/runtime/audit-log';
import type { RateLimiter } from '@asterism/runtime/rate-limiter';
import { Refusals } from '@asterism/runtime/refusals';
import { Counter, type Registry } from 'prom-client';
import type { Callers } from './callers.ts';
import { checkScope, type Scopes } from './scopes.ts';

/** Keys of disks and volumes have 32 bytes, with integrity 96; nobody has use for more (v2.6 gave up to 8160). */
const MAX_LENGTH = 96;
const MAX_ID = 128;
/** Who calls, before that is known. No service account is called so. */
const UNKNOWN = 'unknown';

/** Of its server. All pods reach it, so none may hold much; one connection does for the JoinService of a node. */
export const LIMITS: RpcLimits = {
  maxRequestBytes: 4 * 1024,
  maxResponseBytes: 4 * 1024,
  maxConcurrentCalls: 16,
  maxConnections: 128,
  maxConnectionsPerAddress: 8,
};

export interface KeyServiceParts {
  readonly keys: KeyManager;
  readonly callers: Callers;
  readonly scopes: Scopes;
  /** By caller. */
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
    labelNames: ['outcome', 'reason'],
    registers: [registry],
  });
  const granted = requests.labels('granted', '');
  const refusals = new Refusals();

  async function refuse(caller: string, address: string, keyId: string, error: unknown): Promise<void> {
    const reason = error instanceof AsterismError ? error.code : 'unexpected';
    requests.inc({ outcome: 'refused', reason });
    // Whoever is refused can ask again endlessly, and the disk is the node's.
    const who = caller === UNKNOWN ? address : caller;
    const times = refusals.count(`${who} ${reason}`);
    if (times === undefined) return;
    await audit.append({
      event: 'get-data-key',
      outcome: 'refused',
      caller,
      address,
      keyId: keyId.slice(0, MAX_ID),
      reason,
      times,
    });
  }

  return {
    async getDataKey({ dataKeyId, length }, { header, signal, peer: { address } }) {
      let caller = UNKNOWN;
      try {
        caller = await callers.identify(header('authorization'), address);
        limiter.take(caller);
        if (dataKeyId === '' || dataKeyId.length > MAX_ID)
          throw new ParseError(`data_key_id must have 1 to ${MAX_ID} characters`, { code: 'ERR_KEY_ID' });
        if (length < 1 || length > MAX_LENGTH)
          throw new ParseError(`length must be 1 to ${MAX_LENGTH} bytes`, { code: 'ERR_KEY_LENGTH' });
        checkScope(scopes, caller, dataKeyId);
        const dataKey = await keys.getDek(`key-${dataKeyId}`, length, signal);
        await audit.append({
          event: 'get-data-key',
          outcome: 'granted',
          caller,
          address,
          keyId: dataKeyId,
          length,
        });
        granted.inc();
        return { dataKey };
      } catch (error) {
        await refuse(caller, address, dataKeyId, error);
        throw error;
      }
    },
  };
}
