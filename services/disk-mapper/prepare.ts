import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { isZero } from '@asterism/bytes/bytes';
import { writeFileAtomic } from '@asterism/disk/atomic-file';
import { STATE_KEY_LENGTH, type StateDisk } from '@asterism/disk/state-disk';
import { AsterismError } from '@asterism/errors/errors';
import { CLUSTER_ID_PCR, type MachineTpm } from '@asterism/runtime/machine-tpm';
import type { StateVolume } from './state-volume.ts';

export interface PrepareOptions {
  readonly disk: StateDisk;
  readonly volume: StateVolume;
  readonly tpm: MachineTpm;
  readonly temporaryKeyFile: string;
  readonly log: { info(fields: object, message: string): void };
  /** Gets a member's disk opened; resolves when the node is a member again. */
  readonly unlock: (diskUuid: string) => Promise<void>;
  /** Ends it: what is half done then is done anew at the next start. */
  readonly signal: AbortSignal;
}

/** What was found and done. */
export type Prepared = 'formatted' | 'kept' | 'unlocked';

/**
 * Makes the state disk ready for the bootstrapper. A disk that bears no member's mark is formatted: a new one, or
 * one of a node that was cut off before it was a member. A member's disk is never formatted.
 *
 * @throws the signal's reason, or that a program was stopped for it, when it aborts
 * @throws DiskHeaderError, ParseError a header that we would not have written: nothing is done to the disk
 */
export async function prepareStateDisk(options: PrepareOptions): Promise<Prepared> {
  const { disk, volume, tpm, temporaryKeyFile, log, signal } = options;
  const pcr = (await tpm.readPcrs()).get(CLUSTER_ID_PCR);
  if (pcr === undefined) throw new AsterismError('ERR_TPM_PCR', 'the TPM has no SHA-256 bank with PCR 15');
  const found = await disk.inspect();
  if (found.kind === 'formatted' && found.header.initialized === true) {
    if (!isZero(pcr)) {
      if (!(await volume.isOpen(found.header.uuid)))
        throw new AsterismError(
          'ERR_NODE_STATE',
          'PCR 15 says that this boot has unlocked the state disk, but it is not mounted; reboot',
        );
      log.info({}, 'this boot has unlocked the state disk already');
      return 'kept';
    }
    log.info({ diskUuid: found.header.uuid }, "the state disk is a member's; waiting for its key");
    await options.unlock(found.header.uuid);
    return 'unlocked';
  }
  if (found.kind === 'formatted') {
    const key = await readFile(temporaryKeyFile).catch(() => undefined);
    const isMine = key?.length === STATE_KEY_LENGTH && (await disk.testKey(Uint8Array.from(key)));
    // Formatted, but cut off before the file system was there and mounted: nothing is on it yet.
    if (isMine && (await volume.isOpen(found.header.uuid))) {
      log.info({}, 'this boot has formatted the state disk already');
      return 'kept';
    }
  }
  if (!isZero(pcr)) {
    throw new AsterismError(
      'ERR_NODE_STATE',
      'PCR 15 says that this node is a member, but its state disk is not; reboot',
    );
  }
  signal.throwIfAborted();
  const key = Uint8Array.from(randomBytes(STATE_KEY_LENGTH));
  // Before the format: whoever is killed in between finds a key that opens nothing, never a disk without its key.
  await writeFileAtomic(temporaryKeyFile, key, 0o400);
  // What a disk-mapper that was killed has mounted is not formatted under it.
  await volume.close();
  if (disk.mappable) log.info({}, 'the state disk is formatted and written over once: this takes a while');
  const header = await disk.format(key, signal);
  await volume.create(key, header.uuid, signal);
  log.info({ diskUuid: header.uuid, mapped: disk.mappable }, 'the state disk is formatted');
  return 'formatted';
}
