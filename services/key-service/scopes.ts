import { BoundedCache } from '@asterism/bytes/bounded-cache';
import { type DataObject, getIfThere, type KubernetesApi } from '@asterism/kubernetes/api';
import { StatusError } from '@asterism/rpc/status';
import type { Caller } from './callers.ts';

/** A request for a key, as far as it decides who may have it. */
export interface KeyRequest {
  readonly caller: Caller;
  /** Without the prefix of DEK ids. */
  readonly id: string;
  /** Name of the machine that the caller says the key is for; empty where it says none. */
  readonly onBehalfOf: string;
  readonly signal?: AbortSignal;
}

/** Some ids that a caller may ask for, and on which condition. */
export interface Scope {
  readonly ids: RegExp;
  /** @throws StatusError PERMISSION_DENIED */
  check?(request: KeyRequest): Promise<void>;
}

/** By service account. What is not listed is refused. */
export type Scopes = ReadonlyMap<string, readonly Scope[]>;

const MEASUREMENT_SECRET = /^measurementSecret$/;
/** UUID of a disk, and how often its key was changed. */
const DISK = /^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:\.[1-9][0-9]{0,5})?$/;

const MAX_OWNERS = 10_000;

/**
 * The scopes of this release. JoinService: the secret that the cluster id is made of, and the key of a disk that is
 * bound to the machine for which it asks.
 *
 * A volume driver would be a row here: ids of volumes, with a check that the volume is attached to `caller.node`, which
 * the API server vouches for. An object storage proxy another: ids of buckets.
 */
export function defaultScopes(api: KubernetesApi): Scopes {
  const owners = new DiskOwners(api);
  return new Map([
    [
      'system:serviceaccount:kube-system:join-service',
      [{ ids: MEASUREMENT_SECRET }, { ids: DISK, check: (request) => owners.check(request) }],
    ],
  ]);
}

/** @throws StatusError PERMISSION_DENIED; UnreachableError where the API server does not answer */
export async function checkScope(scopes: Scopes, request: KeyRequest): Promise<void> {
  const { caller, id } = request;
  const scope = scopes.get(caller.account)?.find(({ ids }) => ids.test(id));
  if (scope === undefined) throw beyond(`${caller.account} may not have this key`);
  await scope.check?.(request);
}

/** Of whom JoinService has bound a disk, before it asks for the key (services/join-service/disks.ts). */
class DiskOwners {
  readonly #api: KubernetesApi;
  /** A binding never changes, so what was found once holds. */
  readonly #known = new BoundedCache<string>(MAX_OWNERS);

  constructor(api: KubernetesApi) {
    this.#api = api;
  }

  async check({ id, onBehalfOf, signal }: KeyRequest): Promise<void> {
    const [, uuid = ''] = DISK.exec(id) ?? [];
    if (onBehalfOf === '')
      throw beyond('a disk key is given for the machine that the disk is bound to: name it');
    const owner = this.#known.get(uuid) ?? (await this.#find(uuid, signal));
    if (owner !== onBehalfOf) throw beyond('the disk is not bound to the machine that the key is asked for');
  }

  async #find(uuid: string, signal: AbortSignal | undefined): Promise<string | undefined> {
    const path = `/api/v1/namespaces/kube-system/configmaps/disk-${uuid}`;
    const owner = (await getIfThere<DataObject>(this.#api, path, signal))?.data?.instanceName;
    if (owner !== undefined) this.#known.set(uuid, owner);
    return owner;
  }
}

function beyond(why: string): StatusError {
  return new StatusError('PERMISSION_DENIED', 'ERR_SCOPE', why);
}
