import { StatusError } from '@asterism/rpc/status';

/** Ids of the keys that a caller may ask for. What is not listed is refused. */
export type Scopes = ReadonlyMap<string, readonly RegExp[]>;

const DISK = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const MEASUREMENT_SECRET = /^measurementSecret$/;

/** JoinService hands out state-disk keys and the secret that the cluster id is made of. */
export const DEFAULT_SCOPES: Scopes = new Map([
  ['system:serviceaccount:kube-system:join-service', [DISK, MEASUREMENT_SECRET]],
]);

/** @throws StatusError PERMISSION_DENIED */
export function checkScope(scopes: Scopes, caller: string, id: string): void {
  if (scopes.get(caller)?.some((pattern) => pattern.test(id)) !== true) {
    throw new StatusError('PERMISSION_DENIED', 'ERR_SCOPE', `${caller} may not have this key`);
  }
}
