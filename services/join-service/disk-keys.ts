import { type DiskKeyName, diskDataKeyId, renderDiskKeyName } from '@asterism/disk/key-name';
import { renderKeyToken } from '@asterism/disk/key-token';
import { AsterismError, PolicyError } from '@asterism/errors/errors';
import type { KubernetesApi } from '@asterism/kubernetes/api';
import { type DiskBinding, nextKey, presentKey, recordKey } from './disks.ts';

/** A data key of the KeyService. */
export interface DataKey {
  readonly dataKey: Uint8Array;
  /** As the external KMS wrapped it; empty where keys are derived. */
  readonly envelope: Uint8Array;
  /** Of the key encryption key that it is of. */
  readonly generation: number;
}

export interface DataKeyRequest {
  /** Without the prefix of DEK ids. */
  readonly id: string;
  /** 0: the present one. */
  readonly generation: number;
  /** Name of the machine that the key is for. */
  readonly onBehalfOf: string;
}

/** Data keys of 32 bytes, from the KeyService. */
export type DataKeys = (request: DataKeyRequest, signal: AbortSignal) => Promise<DataKey>;

/** A disk's key with its name. */
export interface DiskKey extends DataKey {
  readonly name: string;
}

/** The keys of a disk and of its cluster. */
export interface KeysOfDisk {
  readonly present: DiskKey;
  readonly next: DiskKey | undefined;
  readonly measurementSecret: DataKey;
}

/** Asks for the keys of disks as their bindings name them. */
export class DiskKeys {
  readonly #api: KubernetesApi;
  readonly #dataKeys: DataKeys;

  constructor(api: KubernetesApi, dataKeys: DataKeys) {
    this.#api = api;
    this.#dataKeys = dataKeys;
  }

  measurementSecret(machine: string, signal: AbortSignal): Promise<DataKey> {
    return this.#dataKeys({ id: 'measurementSecret', generation: 0, onBehalfOf: machine }, signal);
  }

  /**
   * The key of a disk that joins: of the present generation, and recorded as the disk's from then on. Asked for again,
   * it is the one that was recorded.
   */
  async ofJoining(binding: DiskBinding, machine: string, signal: AbortSignal): Promise<DiskKey> {
    if (binding.key !== undefined) return this.present(binding, machine, signal);
    const key = await this.#dataKeys({ id: binding.uuid, generation: 0, onBehalfOf: machine }, signal);
    const name = renderDiskKeyName({ generation: key.generation, change: 0 });
    await recordKey(this.#api, binding, name, signal);
    return { ...key, name };
  }

  present(binding: DiskBinding, machine: string, signal: AbortSignal): Promise<DiskKey> {
    return this.#named(binding, presentKey(binding), machine, signal);
  }

  /** @returns undefined where the key is not to be changed */
  async next(binding: DiskBinding, machine: string, signal: AbortSignal): Promise<DiskKey | undefined> {
    const name = nextKey(binding);
    return name && this.#named(binding, name, machine, signal);
  }

  /** A next key that cannot be had must not keep a node out: its disk may well be open with the present one. */
  async nextOrWhyNot(
    binding: DiskBinding,
    machine: string,
    signal: AbortSignal,
  ): Promise<{ readonly next?: DiskKey | undefined; readonly missing?: string }> {
    try {
      return { next: await this.next(binding, machine, signal) };
    } catch (error) {
      return { missing: error instanceof AsterismError ? error.code : 'unexpected' };
    }
  }

  async #named(
    { uuid }: DiskBinding,
    name: DiskKeyName,
    machine: string,
    signal: AbortSignal,
  ): Promise<DiskKey> {
    const { generation } = name;
    const request = { id: diskDataKeyId(uuid, name), generation, onBehalfOf: machine };
    return { ...(await this.#dataKeys(request, signal)), name: renderDiskKeyName(name) };
  }
}

/**
 * Whether a key that a member says is the only one that opens its disk is news.
 * @throws PolicyError ERR_DISK_KEY it is neither the key of the disk nor the one that it shall have
 */
export function isChange(binding: DiskBinding, proven: string): boolean {
  if (proven === renderDiskKeyName(presentKey(binding))) return false;
  const next = nextKey(binding);
  if (next !== undefined && proven === renderDiskKeyName(next)) return true;
  throw new PolicyError(
    'ERR_DISK_KEY',
    'the key that is said to open the disk is neither its key nor the next one',
  );
}

/** What belongs into the header of the disk, see libs/disk/key-token.ts. */
export function tokenOf({ present, next, measurementSecret }: KeysOfDisk): Uint8Array {
  const wrapped = (envelope: Uint8Array) => (envelope.length === 0 ? undefined : envelope);
  const keys = next === undefined ? [present] : [present, next];
  try {
    return renderKeyToken({
      keys: keys.map(({ name, envelope }) => ({ name, envelope: wrapped(envelope) })),
      measurementSecret: wrapped(measurementSecret.envelope),
    });
  } catch (cause) {
    // The envelopes are the KMS's: the caller has done nothing wrong.
    throw new AsterismError(
      'ERR_KEY_TOKEN',
      'the envelopes of the keys do not fit into the header of the disk: the key encryption key is too large',
      { cause },
    );
  }
}
