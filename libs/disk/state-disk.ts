import { randomUUID } from 'node:crypto';
import { mkdir, open, rm } from 'node:fs/promises';
import { concat } from '@asterism/bytes/bytes';
import { toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError, ParseError } from '@asterism/errors/errors';
import { ProgramError, type ProgramResult, runChecked, runProgram } from '@asterism/runtime/program';
import { removeMappings } from './device-mapper.ts';
import {
  LUKS2_DATA_OFFSET,
  type Luks2Header,
  luksCopies,
  STATE_DISK_TOKEN,
  validateHeaderArea,
} from './luks2-header.ts';

/** Bytes of every passphrase of a state disk: random or derived, never a person's. */
export const STATE_KEY_LENGTH = 32;

/** What cryptsetup could not do with the state disk. */
export class DiskError extends AsterismError {}

/** A LUKS2 operation on the node's state disk. */
export interface StateDiskOptions {
  /** Block device or image file. */
  readonly device: string;
  /** Whether this kernel has device-mapper: then the disk has integrity protection and can be mapped. */
  readonly mappable: boolean;
  /** Folder in memory for private copies of the header. Default /run/asterism/disk. */
  readonly scratch?: string;
  /** Milliseconds for one cryptsetup command. Default 60,000. */
  readonly timeoutMs?: number;
}

/**
 * The passphrase has 256 bits of entropy, so there is nothing for a slow key derivation to protect: PBKDF2 with
 * the least count that cryptsetup allows. Argon2 would only cost the node its memory at every boot.
 */
const KDF = ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000'];

/**
 * The node's LUKS2 state disk, by way of the cryptsetup program. Keys reach it through standard input only.
 * Before any key is tried, the header is copied to memory and judged there, and the copy is what is opened.
 */
export class StateDisk {
  readonly device: string;
  readonly mappable: boolean;
  readonly #scratch: string;
  readonly #timeoutMs: number;

  constructor(options: StateDiskOptions) {
    this.device = options.device;
    this.mappable = options.mappable;
    this.#scratch = options.scratch ?? '/run/asterism/disk';
    this.#timeoutMs = options.timeoutMs ?? 60_000;
  }

  /**
   * What lies on the device. A disk on which nobody's data can be, is blank: no LUKS header, or one that was cut
   * off while it was first written (formatting writes the primary copy first, so the secondary one is missing).
   * @throws DiskHeaderError, ParseError there is a header, but not one of ours: the disk is left as it is
   */
  async inspect(): Promise<
    { readonly kind: 'blank' } | { readonly kind: 'formatted'; readonly header: Luks2Header }
  > {
    const area = await this.#readHeaderArea();
    const present = luksCopies(area);
    if (!present.primary && !present.secondary) return { kind: 'blank' };
    try {
      return { kind: 'formatted', header: await validateHeaderArea(area, this.mappable) };
    } catch (error) {
      if (present.isVersion2 && !present.secondary && error instanceof ParseError) return { kind: 'blank' };
      throw error;
    }
  }

  /**
   * Makes the device an empty LUKS2 volume with one key slot. All that was on it is lost.
   * AES-256-XTS (64-byte key) in sectors of 4096 bytes; with device-mapper also HMAC-SHA-256 per sector: then the
   * volume cannot be read before {@link wipe} has written every sector once.
   */
  async format(key: Uint8Array): Promise<Luks2Header> {
    checkKey(key);
    await this.#cryptsetup(
      [
        'luksFormat',
        '--type',
        'luks2',
        '--cipher',
        'aes-xts-plain64',
        '--key-size',
        '512',
        '--hash',
        'sha256',
        '--sector-size',
        '4096',
        ...KDF,
        // cryptsetup's own wipe maps the volume under a name made of its process id, of which another node on the
        // same kernel may have the same one.
        ...(this.mappable ? ['--integrity', 'hmac-sha256', '--integrity-no-wipe'] : []),
        '--key-file',
        '-',
        this.device,
      ],
      key,
    );
    await this.setInitialized(false);
    return this.header();
  }

  /**
   * Reads and judges the header.
   * @throws DiskHeaderError, ParseError see validateHeaderArea
   */
  async header(): Promise<Luks2Header> {
    return validateHeaderArea(await this.#readHeaderArea(), this.mappable);
  }

  /** Writes the token that says whether the node that owns this disk is a member of a cluster. */
  async setInitialized(initialized: boolean): Promise<void> {
    const token = JSON.stringify({ type: STATE_DISK_TOKEN, keyslots: [], diskIsInitialized: initialized });
    await this.#cryptsetup(
      ['token', 'import', '--token-replace', '--token-id', '0', '--json-file', '-', this.device],
      toUtf8(token),
    );
  }

  /**
   * Proves whether a key opens this disk: its volume key is unwrapped and compared with the header's digest.
   * Needs no device-mapper.
   * @throws DiskHeaderError, ParseError before the key is tried; DiskError where cryptsetup fails otherwise
   */
  async testKey(key: Uint8Array): Promise<boolean> {
    checkKey(key);
    return this.#withHeaderCopy(async (copy) => this.#opens(copy, key));
  }

  /**
   * Makes `newKey` the only key of the disk. At every moment one of the two opens it, and running this again
   * after a crash at any point completes it: the new key is added, proven, and only then the others are removed.
   * @throws DiskError ERR_DISK_WRONG_KEY where neither key opens the disk
   */
  async rekey(oldKey: Uint8Array, newKey: Uint8Array): Promise<void> {
    checkKey(oldKey);
    checkKey(newKey);
    if (!(await this.testKey(newKey))) {
      if (!(await this.testKey(oldKey))) {
        throw new DiskError('ERR_DISK_WRONG_KEY', 'neither the present nor the new key opens the state disk');
      }
      await this.#cryptsetup(
        [
          'luksAddKey',
          ...KDF,
          '--key-file',
          '-',
          '--keyfile-size',
          String(STATE_KEY_LENGTH),
          this.device,
          '-',
        ],
        concat(oldKey, newKey),
      );
      if (!(await this.testKey(newKey))) {
        throw new DiskError('ERR_DISK_REKEY', 'the key that was just added does not open the state disk');
      }
    }
    const { keyslots } = await this.header();
    const mine = await this.#slotOf(newKey, keyslots);
    for (const slot of keyslots) {
      if (slot === mine) continue;
      // cryptsetup asks for a key of one that stays, so a wrong slot number cannot lock the disk.
      await this.#cryptsetup(['luksKillSlot', '--key-file', '-', this.device, String(slot)], newKey);
    }
  }

  /**
   * Writes zeros over a volume that was just formatted, so that each of its sectors has a tag. A journal would only
   * protect what is lost anyway if this is cut off.
   */
  async wipe(name: string, key: Uint8Array): Promise<void> {
    const device = await this.#map(name, key, ['--integrity-no-journal']);
    try {
      await writeZeros(device);
    } finally {
      await this.unmap(name);
    }
  }

  /** Maps the volume as /dev/mapper/NAME, with the header that was judged, not with what the device now says. */
  async map(name: string, key: Uint8Array): Promise<string> {
    return this.#map(name, key, []);
  }

  /** Removes the mapping, also one that was left half made; nothing to do where there is none. */
  async unmap(name: string): Promise<void> {
    if (this.mappable) await removeMappings(name);
  }

  async #map(name: string, key: Uint8Array, flags: readonly string[]): Promise<string> {
    checkKey(key);
    if (!this.mappable) {
      throw new DiskError(
        'ERR_DISK_NO_DEVICE_MAPPER',
        'this kernel has no device-mapper: a disk cannot be mapped',
      );
    }
    await this.#withHeaderCopy((copy) =>
      this.#cryptsetup(
        [
          'open',
          '--type',
          'luks2',
          '--header',
          copy,
          '--key-file',
          '-',
          '--perf-no_read_workqueue',
          '--perf-no_write_workqueue',
          ...flags,
          this.device,
          name,
        ],
        key,
      ),
    );
    return `/dev/mapper/${name}`;
  }

  async #slotOf(key: Uint8Array, slots: readonly number[]): Promise<number> {
    return this.#withHeaderCopy(async (copy) => {
      for (const slot of slots) if (await this.#opens(copy, key, slot)) return slot;
      throw new DiskError('ERR_DISK_WRONG_KEY', 'the key opens no slot of the state disk');
    });
  }

  async #opens(headerCopy: string, key: Uint8Array, slot?: number): Promise<boolean> {
    const args = ['open', '--test-passphrase', '--type', 'luks2', '--key-file', '-'];
    if (slot !== undefined) args.push('--key-slot', String(slot));
    const result = await this.#run([...args, headerCopy], key);
    if (result.code === 0) return true;
    if (result.code === EXIT_WRONG_KEY) return false;
    throw failure('open --test-passphrase', result);
  }

  async #withHeaderCopy<T>(use: (path: string) => Promise<T>): Promise<T> {
    const area = await this.#readHeaderArea();
    await validateHeaderArea(area, this.mappable);
    await mkdir(this.#scratch, { recursive: true, mode: 0o700 });
    const path = `${this.#scratch}/header-${randomUUID()}`;
    try {
      const file = await open(path, 'wx', 0o600);
      try {
        await file.writeFile(area);
        // cryptsetup refuses a file that ends where the data should begin; the hole takes no memory.
        await file.truncate(LUKS2_DATA_OFFSET + 1024 * 1024);
      } finally {
        await file.close();
      }
      return await use(path);
    } finally {
      await rm(path, { force: true });
    }
  }

  async #readHeaderArea(): Promise<Uint8Array> {
    const file = await open(this.device, 'r');
    try {
      const area = new Uint8Array(LUKS2_DATA_OFFSET);
      let at = 0;
      while (at < area.length) {
        const { bytesRead } = await file.read(area, at, area.length - at, at);
        if (bytesRead === 0)
          throw new ParseError(`the state disk ends after ${at} bytes, before its data begin`);
        at += bytesRead;
      }
      return area;
    } finally {
      await file.close();
    }
  }

  async #cryptsetup(args: readonly string[], stdin: Uint8Array, timeoutMs = this.#timeoutMs): Promise<void> {
    const result = await this.#run(args, stdin, timeoutMs);
    if (result.code !== 0) throw failure(args[0] ?? '', result);
  }

  async #run(
    args: readonly string[],
    stdin: Uint8Array,
    timeoutMs = this.#timeoutMs,
  ): Promise<ProgramResult> {
    try {
      return await runProgram('cryptsetup', ['--batch-mode', ...args], { stdin, timeoutMs });
    } catch (cause) {
      if (cause instanceof ProgramError) throw new DiskError('ERR_DISK_PROGRAM', cause.message, { cause });
      throw cause;
    }
  }
}

const WIPE_BLOCK = 1024 * 1024;
/** So much may wait in the page cache: beyond that the node's memory would fill faster than its disk. */
const WIPE_SYNC_BYTES = 64 * WIPE_BLOCK;

async function writeZeros(device: string): Promise<void> {
  const zeros = new Uint8Array(WIPE_BLOCK);
  const size = Number(await runChecked('blockdev', ['--getsize64', device], { timeoutMs: 60_000 }));
  const file = await open(device, 'r+');
  try {
    for (let at = 0; at < size; ) {
      const { bytesWritten } = await file.write(zeros, 0, Math.min(zeros.length, size - at), at);
      at += bytesWritten;
      if (at % WIPE_SYNC_BYTES === 0) await file.datasync();
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

/** cryptsetup(8), RETURN CODES: "2 no permission (bad passphrase)". */
const EXIT_WRONG_KEY = 2;

function failure(what: string, result: ProgramResult): DiskError {
  const code = result.code === EXIT_WRONG_KEY ? 'ERR_DISK_WRONG_KEY' : 'ERR_DISK';
  return new DiskError(
    code,
    `cryptsetup ${what} exited with ${result.code}: ${result.stderr.trim().slice(-500)}`,
  );
}

function checkKey(key: Uint8Array): void {
  if (key.length !== STATE_KEY_LENGTH) {
    throw new DiskError(
      'ERR_DISK_KEY_LENGTH',
      `a state disk key has ${STATE_KEY_LENGTH} bytes, not ${key.length}`,
    );
  }
}
