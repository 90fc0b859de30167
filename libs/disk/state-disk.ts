import { open } from 'node:fs/promises';
import { concat, equal } from '@asterism/bytes/bytes';
import { toUtf8 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { runChecked } from '@asterism/runtime/program';
import { Cryptsetup, DiskError } from './cryptsetup.ts';
import { removeMappings } from './device-mapper.ts';
import { HeaderCopy, type HeaderPlace, readHeaderArea } from './header-copy.ts';
import { type DiskKeyToken, renderKeyToken } from './key-token.ts';
import { type Luks2Header, luksCopies, STATE_DISK_TOKEN, validateHeaderArea } from './luks2-header.ts';

/** Bytes of every passphrase of a state disk: random or derived, never a person's. */
export const STATE_KEY_LENGTH = 32;

/** A LUKS2 operation on the node's state disk. */
export interface StateDiskOptions {
  /** Block device or image file. */
  readonly device: string;
  /** Whether this kernel has device-mapper: then the disk has integrity protection and can be mapped. */
  readonly mappable: boolean;
  /** Folder in memory for private copies of the header. Default /run/asterism/disk. */
  readonly scratch?: string;
  readonly cryptsetup?: Cryptsetup;
}

/**
 * The passphrase has 256 bits of entropy, so there is nothing for a slow key derivation to protect: PBKDF2 with
 * the least count that cryptsetup allows. Argon2 would only cost the node its memory at every boot.
 */
const KDF = ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000'];

/**
 * The node's LUKS2 state disk, by way of the cryptsetup program. Before any key is tried, the header is copied to
 * memory and judged there; the copy is what is opened and changed, never what the disk says by then.
 */
export class StateDisk {
  readonly device: string;
  readonly mappable: boolean;
  readonly #cryptsetup: Cryptsetup;
  readonly #place: HeaderPlace;

  constructor(options: StateDiskOptions) {
    this.device = options.device;
    this.mappable = options.mappable;
    this.#cryptsetup = options.cryptsetup ?? new Cryptsetup();
    this.#place = {
      device: options.device,
      integrity: options.mappable,
      scratch: options.scratch ?? '/run/asterism/disk',
    };
  }

  /**
   * What lies on the device. A disk on which nobody's data can be, is blank: no LUKS header, or one that was cut
   * off while it was first written (formatting writes the primary copy first, so the secondary one is missing).
   * @throws DiskHeaderError, ParseError there is a header, but not one of ours: the disk is left as it is
   */
  async inspect(): Promise<
    { readonly kind: 'blank' } | { readonly kind: 'formatted'; readonly header: Luks2Header }
  > {
    const area = await readHeaderArea(this.device);
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
   * @throws DiskError ERR_DISK_PROGRAM where the signal aborts: the disk may be formatted by half
   */
  async format(key: Uint8Array, signal?: AbortSignal): Promise<Luks2Header> {
    checkKey(key);
    await this.#cryptsetup.must(
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
      signal,
    );
    await this.setInitialized(false);
    return this.header();
  }

  /**
   * Reads and judges the header.
   * @throws DiskHeaderError, ParseError see validateHeaderArea
   */
  async header(): Promise<Luks2Header> {
    return validateHeaderArea(await readHeaderArea(this.device), this.mappable);
  }

  /** Writes the token that says whether the node that owns this disk is a member of a cluster. */
  async setInitialized(initialized: boolean): Promise<void> {
    const token = JSON.stringify({ type: STATE_DISK_TOKEN, keyslots: [], diskIsInitialized: initialized });
    await this.#setToken('0', toUtf8(token));
  }

  /**
   * Writes the token that says which keys open this disk. Nothing is written where it says so already.
   * @returns whether it was written
   * @throws ParseError ERR_KEY_TOKEN
   */
  async setKeyToken(token: DiskKeyToken): Promise<boolean> {
    const wanted = renderKeyToken(token);
    const { keyToken } = await this.header();
    if (keyToken !== undefined && equal(renderKeyToken(keyToken), wanted)) return false;
    await this.#setToken('1', wanted);
    return true;
  }

  async #setToken(id: '0' | '1', json: Uint8Array): Promise<void> {
    await HeaderCopy.use(this.#place, async (copy) => {
      await this.#cryptsetup.must(
        ['token', 'import', '--token-replace', '--token-id', id, '--json-file', '-', copy.path],
        json,
      );
      await copy.writeBack();
    });
  }

  /**
   * Proves whether a key opens this disk: its volume key is unwrapped and compared with the header's digest.
   * Needs no device-mapper.
   * @throws DiskHeaderError, ParseError before the key is tried; DiskError where cryptsetup fails otherwise
   */
  async testKey(key: Uint8Array): Promise<boolean> {
    checkKey(key);
    return HeaderCopy.use(this.#place, ({ path }) => this.#cryptsetup.opens(path, key));
  }

  /**
   * Makes `newKey` the only key of the disk. At every moment one of the two opens it, and running this again
   * after a crash at any point completes it: the new key is added and proven, that is written to the disk, and only
   * then the others are removed.
   * @throws DiskError ERR_DISK_WRONG_KEY where neither key opens the disk
   */
  async rekey(oldKey: Uint8Array, newKey: Uint8Array): Promise<void> {
    checkKey(oldKey);
    checkKey(newKey);
    await HeaderCopy.use(this.#place, async (copy) => {
      if (!(await this.#cryptsetup.opens(copy.path, newKey))) await this.#addKey(copy, oldKey, newKey);
      const { keyslots } = copy.header;
      const mine = await this.#slotOf(copy, newKey);
      for (const slot of keyslots) {
        if (slot === mine) continue;
        // cryptsetup asks for a key of one that stays, so a wrong slot number cannot lock the disk.
        await this.#cryptsetup.must(['luksKillSlot', '--key-file', '-', copy.path, String(slot)], newKey);
      }
      if (keyslots.length > 1) await copy.writeBack();
    });
  }

  async #addKey(copy: HeaderCopy, oldKey: Uint8Array, newKey: Uint8Array): Promise<void> {
    if (!(await this.#cryptsetup.opens(copy.path, oldKey))) {
      throw new DiskError('ERR_DISK_WRONG_KEY', 'neither the present nor the new key opens the state disk');
    }
    const length = String(STATE_KEY_LENGTH);
    await this.#cryptsetup.must(
      ['luksAddKey', ...KDF, '--key-file', '-', '--keyfile-size', length, copy.path, '-'],
      concat(oldKey, newKey),
    );
    if (!(await this.#cryptsetup.opens(copy.path, newKey))) {
      throw new DiskError('ERR_DISK_REKEY', 'the key that was just added does not open the state disk');
    }
    await copy.writeBack();
  }

  /**
   * Writes zeros over a volume that was just formatted, so that each of its sectors has a tag. A journal would only
   * protect what is lost anyway if this is cut off.
   * @throws the signal's reason, when it aborts
   */
  async wipe(name: string, key: Uint8Array, signal?: AbortSignal): Promise<void> {
    const device = await this.#map(name, key, ['--integrity-no-journal']);
    try {
      await writeZeros(device, signal);
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
    await HeaderCopy.use(this.#place, ({ path }) =>
      this.#cryptsetup.must(
        [
          'open',
          '--type',
          'luks2',
          '--header',
          path,
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

  async #slotOf({ path, header }: HeaderCopy, key: Uint8Array): Promise<number> {
    for (const slot of header.keyslots) if (await this.#cryptsetup.opens(path, key, slot)) return slot;
    throw new DiskError('ERR_DISK_WRONG_KEY', 'the key opens no slot of the state disk');
  }
}

const WIPE_BLOCK = 1024 * 1024;
/** So much may wait in the page cache: beyond that the node's memory would fill faster than its disk. */
const WIPE_SYNC_BYTES = 64 * WIPE_BLOCK;

async function writeZeros(device: string, signal: AbortSignal | undefined): Promise<void> {
  const zeros = new Uint8Array(WIPE_BLOCK);
  const size = Number(await runChecked('blockdev', ['--getsize64', device], { timeoutMs: 60_000 }));
  const file = await open(device, 'r+');
  try {
    for (let at = 0; at < size; ) {
      signal?.throwIfAborted();
      const { bytesWritten } = await file.write(zeros, 0, Math.min(zeros.length, size - at), at);
      at += bytesWritten;
      if (at % WIPE_SYNC_BYTES === 0) await file.datasync();
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

function checkKey(key: Uint8Array): void {
  if (key.length !== STATE_KEY_LENGTH) {
    throw new DiskError(
      'ERR_DISK_KEY_LENGTH',
      `a state disk key has ${STATE_KEY_LENGTH} bytes, not ${key.length}`,
    );
  }
}
