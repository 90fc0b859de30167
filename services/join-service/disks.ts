import { type DiskKeyName, FIRST_DISK_KEY, parseDiskKeyName } from '@asterism/disk/key-name';
import { AsterismError, ParseError, PolicyError } from '@asterism/errors/errors';
import {
  createIfAbsent,
  type DataObject,
  getIfThere,
  type KubernetesApi,
  KubernetesApiError,
} from '@asterism/kubernetes/api';
import { StatusError } from '@asterism/rpc/status';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const CONFIG_MAPS = '/api/v1/namespaces/kube-system/configmaps';

/** Whose a disk is: the machine by its provider's name and by its TPM's attestation key. */
export interface DiskOwner {
  readonly instanceName: string;
  readonly attestationKeyId: string;
}

/** A disk that is bound to a machine: the ConfigMap disk-<uuid>. */
export interface DiskBinding {
  readonly uuid: string;
  /** Name of the key that opens the disk; undefined: not recorded yet, or from before keys had names. */
  readonly key: string | undefined;
  /** Name of the key that an administrator wants it to have. */
  readonly nextKey: string | undefined;
  /** As it was read. */
  readonly object: DataObject;
}

/** @throws ParseError ERR_DISK_UUID */
export function readDiskUuid(text: string): string {
  const uuid = text.toLowerCase();
  if (!UUID.test(uuid)) throw new ParseError('disk_uuid is no UUID', { code: 'ERR_DISK_UUID' });
  return uuid;
}

/** Binds a disk to a machine, once and for all; that one may ask again. Of two that ask at once one loses. */
export async function bindDisk(
  api: KubernetesApi,
  uuid: string,
  { instanceName, attestationKeyId }: DiskOwner,
  signal: AbortSignal,
): Promise<DiskBinding> {
  const object = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: `disk-${uuid}`, namespace: 'kube-system' },
    data: { instanceName, attestationKeyId },
  };
  // The API server decides, so two requests at once cannot both create it.
  const made = await createIfAbsent<DataObject>(api, CONFIG_MAPS, object, signal);
  if (made !== undefined) return read(uuid, made);
  return ownDisk(api, uuid, { instanceName, attestationKeyId }, signal);
}

/** @throws PolicyError ERR_DISK_OWNER the disk is another machine's, or nobody's */
export async function ownDisk(
  api: KubernetesApi,
  uuid: string,
  owner: DiskOwner,
  signal: AbortSignal,
): Promise<DiskBinding> {
  const object = await getIfThere<DataObject>(api, `${CONFIG_MAPS}/disk-${uuid}`, signal);
  const { instanceName, attestationKeyId } = object?.data ?? {};
  if (
    object === undefined ||
    instanceName !== owner.instanceName ||
    attestationKeyId !== owner.attestationKeyId
  ) {
    throw new PolicyError(
      'ERR_DISK_OWNER',
      'the disk does not belong to this machine: its key is given to no other',
    );
  }
  return read(uuid, object);
}

/**
 * Records which key opens a disk now; a next one that was wanted is thereby reached.
 * @throws StatusError UNAVAILABLE ERR_DISK_BINDING_CHANGED somebody else has written to the binding; asking again helps
 */
export async function recordKey(
  api: KubernetesApi,
  { uuid, object }: DiskBinding,
  key: string,
  signal: AbortSignal,
): Promise<DiskBinding> {
  const { nextKey: _, ...data } = object.data ?? {};
  try {
    // The resource version in it makes this a compare-and-swap.
    const changed = { ...object, data: { ...data, key } };
    return read(uuid, await api.call('PUT', `${CONFIG_MAPS}/disk-${uuid}`, changed, signal));
  } catch (cause) {
    if (!(cause instanceof KubernetesApiError) || cause.status !== 409) throw cause;
    throw new StatusError(
      'UNAVAILABLE',
      'ERR_DISK_BINDING_CHANGED',
      'what is recorded of the disk has changed under way: ask again',
      { cause },
    );
  }
}

/**
 * The key that opens a disk.
 * @throws AsterismError ERR_DISK_BINDING what is recorded is no name
 */
export function presentKey(binding: DiskBinding): DiskKeyName {
  return nameIn(binding, 'key', binding.key ?? FIRST_DISK_KEY);
}

/**
 * The key that the disk shall have next; undefined where it is not to be changed. Only a later one counts: to go back to
 * a key that was given up is no change for the better.
 * @throws AsterismError ERR_DISK_BINDING
 */
export function nextKey(binding: DiskBinding): DiskKeyName | undefined {
  if (binding.nextKey === undefined || binding.nextKey === (binding.key ?? FIRST_DISK_KEY)) return undefined;
  const present = presentKey(binding);
  const next = nameIn(binding, 'nextKey', binding.nextKey);
  const isLater =
    next.generation > present.generation ||
    (next.generation === present.generation && next.change > present.change);
  if (!isLater) throw bad(binding, `nextKey ${binding.nextKey} is not later than the present key`);
  return next;
}

function nameIn(binding: DiskBinding, field: string, text: string): DiskKeyName {
  try {
    return parseDiskKeyName(text);
  } catch (cause) {
    throw bad(binding, `its ${field} is not GENERATION.CHANGE`, cause);
  }
}

function bad({ uuid }: DiskBinding, why: string, cause?: unknown): AsterismError {
  return new AsterismError('ERR_DISK_BINDING', `ConfigMap kube-system/disk-${uuid} cannot be used: ${why}`, {
    cause,
  });
}

function read(uuid: string, object: DataObject): DiskBinding {
  return { uuid, key: object.data?.key, nextKey: object.data?.nextKey, object };
}
