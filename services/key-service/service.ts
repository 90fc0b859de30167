import { AsterismError, ParseError } from '@asterism/errors/errors';
import type { RpcLimits } from '@asterism/rpc/connection-host';
import type { API, GetDataKeyRequest } from '@asterism/rpc/gen/keyservice_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import type { AuditLog } from '@asterism/runtime/audit-log';
import type { RateLimiter } from '@asterism/runtime/rate-limiter';
import { Refusals } from '@asterism/runtime/refusals';
import { Counter, type Registry } from 'prom-client';
import type { Callers } from './callers.ts';
import type { KeyHomes } from './key-homes.ts';
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
  readonly homes: Pick<KeyHomes, 'dataKey'>;
  readonly callers: Callers;
  readonly scopes: Scopes;
  /** By caller. */
  readonly limiter: RateLimiter;
  readonly audit: AuditLog;
  readonly registry: Registry;
}

/** Handlers of kms.API. */
export function keyService({
  homes,
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

  async function refuse(caller: string, address: string, request: GetDataKeyRequest, error: unknown) {
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
      ...about(request),
      reason,
      times,
    });
  }

  return {
    async getDataKey(request, { header, signal, peer: { address } }) {
      const { dataKeyId, length, generation, onBehalfOf } = request;
      let account = UNKNOWN;
      try {
        const caller = await callers.identify(header('authorization'), address);
        account = caller.account;
        limiter.take(account);
        if (dataKeyId === '' || dataKeyId.length > MAX_ID)
          throw new ParseError(`data_key_id must have 1 to ${MAX_ID} characters`, { code: 'ERR_KEY_ID' });
        if (length < 1 || length > MAX_LENGTH)
          throw new ParseError(`length must be 1 to ${MAX_LENGTH} bytes`, { code: 'ERR_KEY_LENGTH' });
        if (onBehalfOf.length > MAX_ID)
          throw new ParseError(`on_behalf_of has more than ${MAX_ID} characters`, { code: 'ERR_KEY_ID' });
        await checkScope(scopes, { caller, id: dataKeyId, onBehalfOf, signal });
        const key = await homes.dataKey(`key-${dataKeyId}`, length, generation, signal);
        await audit.append({
          event: 'get-data-key',
          outcome: 'granted',
          caller: account,
          address,
          ...about(request),
          length,
          generation: key.generation,
        });
        granted.inc();
        return key;
      } catch (error) {
        await refuse(account, address, request, error);
        throw error;
      }
    },
  };
}

/** What a request says of itself; nothing of it need be true. */
function about({ dataKeyId, onBehalfOf }: GetDataKeyRequest) {
  return {
    keyId: dataKeyId.slice(0, MAX_ID),
    onBehalfOf: onBehalfOf === '' ? undefined : onBehalfOf.slice(0, MAX_ID),
  };
}
