import type { StateLayout } from '@asterism/disk/layout';
import { readNodeState } from '@asterism/disk/node-state';
import type { StateDisk } from '@asterism/disk/state-disk';
import { AsterismError, PolicyError } from '@asterism/errors/errors';
import { type MachineTpm, measureClusterId } from '@asterism/runtime/machine-tpm';
import type { Attempt, MemberAudit } from './audit.ts';
import type { StateVolume } from './state-volume.ts';

export interface MemberKeys {
  /** 32 bytes. */
  readonly diskKey: Uint8Array;
  /** 32 bytes; undefined unless the key is being changed: then one of the two opens the disk. */
  readonly nextDiskKey?: Uint8Array | undefined;
  /** 32 bytes. */
  readonly measurementSecret: Uint8Array;
}

export interface UnlockerOptions {
  readonly disk: StateDisk;
  readonly volume: StateVolume;
  readonly layout: StateLayout;
  readonly tpm: MachineTpm;
  readonly diskUuid: string;
  readonly audit: Pick<MemberAudit, 'granted'>;
  readonly clusterId: (measurementSecret: Uint8Array, measurementSalt: Uint8Array) => Promise<Uint8Array>;
}

/** The key that was given does not open this disk. */
export class WrongKeyError extends AsterismError {
  constructor() {
    super('ERR_DISK_WRONG_KEY', 'the key does not open the state disk of this node');
  }
}

/**
 * Takes keys that claim to be this member's all the way to a node that is a member again: the key is proven on the
 * disk, the volume is opened, the grant is in the audit log, the cluster id is measured. One attempt at a time; after
 * the first success every later one is refused.
 */
export class Unlocker {
  readonly #options: UnlockerOptions;
  #queue: Promise<unknown> = Promise.resolve();
  #done = false;

  constructor(options: UnlockerOptions) {
    this.#options = options;
  }

  /**
   * @param by who gave the keys
   * @param accept judges the cluster id before it is measured; throws to refuse
   * @throws WrongKeyError nothing was changed
   */
  unlock(keys: MemberKeys, by: Attempt, accept: (clusterId: Uint8Array) => void = () => {}): Promise<void> {
    const attempt = this.#queue.then(() => this.#unlock(keys, by, accept));
    this.#queue = attempt.catch(() => {});
    return attempt;
  }

  async #unlock(keys: MemberKeys, by: Attempt, accept: (clusterId: Uint8Array) => void): Promise<void> {
    if (this.#done) throw new AsterismError('ERR_DISK_UNLOCKED', 'the state disk is unlocked already');
    const { disk, volume, layout, tpm, diskUuid, audit } = this.#options;
    await volume.open(await openingKey(disk, keys));
    try {
      const { measurementSalt } = await readNodeState(layout.nodeState);
      const clusterId = await this.#options.clusterId(keys.measurementSecret, measurementSalt);
      accept(clusterId);
      await audit.granted(by, diskUuid);
      if (!(await measureClusterId(tpm, clusterId))) {
        throw new PolicyError('ERR_NODE_INITIALIZED', 'PCR 15 of this boot holds the id of another cluster');
      }
    } catch (error) {
      await volume.close();
      throw error;
    }
    this.#done = true;
  }
}

/** @throws WrongKeyError */
async function openingKey(disk: StateDisk, { diskKey, nextDiskKey }: MemberKeys): Promise<Uint8Array> {
  if (await disk.testKey(diskKey)) return diskKey;
  if (nextDiskKey !== undefined && (await disk.testKey(nextDiskKey))) return nextDiskKey;
  throw new WrongKeyError();
}
