import { equal, isZero } from '@asterism/bytes/bytes';
import { toHex } from '@asterism/bytes/encoding';
import { Reader } from '@asterism/bytes/reader';
import { AsterismError, ParseError } from '@asterism/errors/errors';
import { z } from 'zod';
import { type DiskKeyToken, keyTokenSchema, readKeyToken } from './key-token.ts';

/** Bytes at the start of a device that hold both headers and all key slots: cryptsetup's default data offset. */
export const LUKS2_DATA_OFFSET = 16 * 1024 * 1024;
const BINARY_HEADER_SIZE = 4096;
/** Sizes of one header (binary part and JSON) that LUKS2 knows, section 2.2 of its on-disk format. */
const HEADER_SIZES = [0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000];
/** Ours is the default one; larger headers are refused before their JSON is read. */
const MAX_HEADER_SIZE = 0x10000;
export const PRIMARY_MAGIC = '4c554b53babe';
export const SECONDARY_MAGIC = '534b554cbabe';

/** The token that tells a member's disk from one that was formatted and then never joined. */
export const STATE_DISK_TOKEN = 'asterism-state-disk';

/** The header of a disk is not one that this software would have written: the disk must not be opened. */
export class DiskHeaderError extends AsterismError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('ERR_DISK_HEADER', message, options);
  }
}

/** A LUKS2 header that passed {@link validateHeaderArea}. */
export interface Luks2Header {
  /** Lower case. */
  readonly uuid: string;
  readonly sequence: bigint;
  /** Bytes of each of its two copies, of which one follows the other. */
  readonly headerSize: number;
  /** What the volume is: its segment, and the digest of its key. Nothing that is done to key slots changes it. */
  readonly volume: string;
  readonly keyslots: readonly number[];
  /** Whether the volume has per-sector authentication (dm-integrity below dm-crypt). */
  readonly integrity: boolean;
  /** Undefined where the token is missing. */
  readonly initialized: boolean | undefined;
  /** Undefined where the disk is nobody's yet, or was a member's before keys had names. A hint, see DiskKeyToken. */
  readonly keyToken: DiskKeyToken | undefined;
}

const size = z.string().regex(/^(0|[1-9][0-9]{0,14})$/);
const salt = z.string().regex(/^[A-Za-z0-9+/]{43}=$/);

const area = z.strictObject({
  type: z.literal('raw'),
  offset: size,
  size,
  encryption: z.literal('aes-xts-plain64'),
  key_size: z.literal(64),
});

const keyslot = z.strictObject({
  type: z.literal('luks2'),
  key_size: z.union([z.literal(64), z.literal(96)]),
  af: z.strictObject({ type: z.literal('luks1'), stripes: z.literal(4000), hash: z.literal('sha256') }),
  area,
  kdf: z.strictObject({
    type: z.literal('pbkdf2'),
    hash: z.literal('sha256'),
    // The upper bound keeps a forged header from stalling the boot.
    iterations: z.number().int().min(1000).max(10_000_000),
    salt,
  }),
});

const segment = z.strictObject({
  type: z.literal('crypt'),
  offset: z.literal(String(LUKS2_DATA_OFFSET)),
  size: z.literal('dynamic'),
  iv_tweak: z.literal('0'),
  encryption: z.literal('aes-xts-plain64'),
  sector_size: z.literal(4096),
  integrity: z
    .strictObject({
      type: z.literal('hmac(sha256)'),
      journal_encryption: z.literal('none'),
      journal_integrity: z.literal('none'),
    })
    .optional(),
});

const digest = z.strictObject({
  type: z.literal('pbkdf2'),
  keyslots: z
    .array(z.string().regex(/^[0-9]{1,2}$/))
    .min(1)
    .max(32),
  segments: z.tuple([z.literal('0')]),
  hash: z.literal('sha256'),
  iterations: z.number().int().min(1000).max(10_000_000),
  salt,
  digest: z.string().regex(/^[A-Za-z0-9+/]{43}=$/),
});

const metadata = z.strictObject({
  keyslots: z.record(z.string().regex(/^([0-9]|[12][0-9]|3[01])$/), keyslot),
  tokens: z.union([
    z.strictObject({}),
    z.strictObject({
      '0': z.strictObject({
        type: z.literal(STATE_DISK_TOKEN),
        keyslots: z.tuple([]),
        diskIsInitialized: z.boolean(),
      }),
      '1': keyTokenSchema.optional(),
    }),
  ]),
  segments: z.strictObject({ '0': segment }),
  digests: z.strictObject({ '0': digest }),
  // No `flags` and no `requirements`: those switch on re-encryption and the like, which we never use.
  config: z.strictObject({ json_size: size, keyslots_size: size }),
});

export interface RawHeader {
  readonly uuid: string;
  readonly sequence: bigint;
  readonly headerSize: number;
  readonly json: string;
}

/**
 * Judges the first {@link LUKS2_DATA_OFFSET} bytes of a device (a private copy of them: the device's owner could
 * change it between the check and the use). The disk lies in the hands of the provider, and whoever can write the
 * header could otherwise have the volume opened with a null cipher, without integrity, or mapped onto other
 * bytes (the class of CVE-2025-59054): only what our own format writes is accepted, in both copies of the header.
 *
 * @param expectIntegrity whether the segment must have (true) or must not have (false) hmac(sha256) integrity
 * @throws DiskHeaderError the header differs from our format
 * @throws ParseError the area is no LUKS2 header at all
 */
export async function validateHeaderArea(
  headerArea: Uint8Array,
  expectIntegrity: boolean,
): Promise<Luks2Header> {
  const primary = await parseCopy(headerArea, 0, PRIMARY_MAGIC);
  if (primary === undefined) throw new ParseError('the primary LUKS2 header is missing or damaged');
  const secondary = await parseCopy(headerArea, primary.headerSize, SECONDARY_MAGIC);
  // A power cut between the two writes leaves the second one old or torn; cryptsetup then repairs it from the
  // first. A second one that is NEWER is never ours: the first is written first.
  if (secondary !== undefined) {
    if (secondary.sequence > primary.sequence) {
      throw new DiskHeaderError('the secondary LUKS2 header is newer than the primary one');
    }
    if (secondary.uuid !== primary.uuid)
      throw new DiskHeaderError('the two LUKS2 headers have different UUIDs');
    judge(secondary, expectIntegrity);
  }
  return judge(primary, expectIntegrity);
}

/** Which of the two magics a header area has, whether or not what follows them is whole. */
export function luksCopies(headerArea: Uint8Array): {
  readonly primary: boolean;
  readonly secondary: boolean;
  readonly isVersion2: boolean;
} {
  const magicAt = (at: number): string => toHex(headerArea.subarray(at, at + 6));
  return {
    primary: magicAt(0) === PRIMARY_MAGIC,
    secondary: HEADER_SIZES.some((at) => magicAt(at) === SECONDARY_MAGIC),
    isVersion2: headerArea[6] === 0 && headerArea[7] === 2,
  };
}

/** On-disk format section 2.1, table of the binary header. Undefined where magic or checksum do not hold. */
export async function parseCopy(
  headerArea: Uint8Array,
  at: number,
  magic: string,
): Promise<RawHeader | undefined> {
  if (headerArea.length < at + BINARY_HEADER_SIZE) return undefined;
  const reader = new Reader(headerArea.subarray(at, at + BINARY_HEADER_SIZE), at);
  if (toHex(reader.bytes(6, 'magic')) !== magic) return undefined;
  const version = reader.u16be('version');
  if (version !== 2) throw new ParseError(`LUKS version ${version} is not 2`, { offset: at + 6 });
  const headerSize = Number(reader.u64be('header size'));
  const sequence = reader.u64be('sequence');
  const label = reader.bytes(48, 'label');
  const checksumAlgorithm = text(reader.bytes(32, 'checksum algorithm'), 'checksum algorithm');
  reader.bytes(64, 'salt');
  const uuid = text(reader.bytes(40, 'uuid'), 'uuid').toLowerCase();
  const subsystem = reader.bytes(48, 'subsystem');
  const offset = Number(reader.u64be('header offset'));
  const padding = reader.bytes(184, 'padding');
  const checksumAt = reader.offset - at;
  const checksum = reader.bytes(64, 'checksum');
  const padding4096 = reader.rest();

  if (!HEADER_SIZES.includes(headerSize) || headerSize > MAX_HEADER_SIZE) {
    throw new DiskHeaderError(`a LUKS2 header of ${headerSize} bytes is not one of ours`);
  }
  if (headerArea.length < at + headerSize)
    throw new ParseError('the LUKS2 header is cut off', { offset: at });
  if (checksumAlgorithm !== 'sha256')
    throw new DiskHeaderError(`header checksum ${checksumAlgorithm}, not sha256`);
  // A true copy, also of a Buffer, whose slice() is a view.
  const whole = Uint8Array.from(headerArea.subarray(at, at + headerSize));
  whole.fill(0, checksumAt, checksumAt + 64);
  const computed = new Uint8Array(await crypto.subtle.digest('SHA-256', whole));
  if (!equal(computed, checksum.subarray(0, 32))) return undefined;

  if (offset !== at) throw new DiskHeaderError(`the LUKS2 header at ${at} says it stands at ${offset}`);
  if (!isZero(padding) || !isZero(padding4096) || !isZero(checksum.subarray(32))) {
    throw new DiskHeaderError('the padding of the LUKS2 header is not zero');
  }
  if (!isZero(label) || !isZero(subsystem))
    throw new DiskHeaderError('the LUKS2 header has a label or subsystem');
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uuid)) {
    throw new DiskHeaderError('the UUID in the LUKS2 header has not the form of one');
  }
  const jsonArea = whole.subarray(BINARY_HEADER_SIZE);
  const end = jsonArea.indexOf(0);
  if (end < 0) throw new DiskHeaderError('the JSON of the LUKS2 header has no end');
  if (!isZero(jsonArea.subarray(end))) throw new DiskHeaderError('bytes follow the JSON of the LUKS2 header');
  return { uuid, sequence, headerSize, json: text(jsonArea, 'JSON') };
}

function text(field: Uint8Array, what: string): string {
  const end = field.indexOf(0);
  const bytes = end < 0 ? field : field.subarray(0, end);
  if (bytes.some((byte) => byte < 0x20 || byte > 0x7e))
    throw new ParseError(`${what} of the LUKS2 header is not ASCII`);
  return String.fromCharCode(...bytes);
}

function judge(raw: RawHeader, expectIntegrity: boolean): Luks2Header {
  let value: unknown;
  try {
    value = JSON.parse(raw.json);
  } catch (cause) {
    throw new DiskHeaderError('the LUKS2 metadata is not JSON', { cause });
  }
  // cryptsetup writes compact JSON, so printing what was understood gives the same length back. Duplicate keys,
  // of which another parser might take the other one, do not survive this.
  if (JSON.stringify(value).length !== raw.json.length) {
    throw new DiskHeaderError(
      'the LUKS2 metadata has duplicate keys or is not in the form that cryptsetup writes',
    );
  }
  const parsed = metadata.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new DiskHeaderError(
      `the LUKS2 metadata is not what our format writes: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`,
    );
  }
  const { keyslots, segments, digests, tokens, config } = parsed.data;
  const segmentOfVolume = segments['0'];
  const integrity = segmentOfVolume.integrity !== undefined;
  if (integrity !== expectIntegrity) {
    throw new DiskHeaderError(
      expectIntegrity
        ? 'the volume has no integrity protection although this machine formats with it'
        : 'the volume has integrity protection, which this machine cannot open',
    );
  }
  const keySize = integrity ? 96 : 64;
  const slots = Object.entries(keyslots);
  if (slots.length > 32) throw new DiskHeaderError('more than 32 key slots');
  if (Number(config.json_size) !== raw.headerSize - BINARY_HEADER_SIZE) {
    throw new DiskHeaderError('the JSON size of the LUKS2 header contradicts its size');
  }
  const slotsFrom = 2 * raw.headerSize;
  const slotsTo = slotsFrom + Number(config.keyslots_size);
  if (slotsTo > LUKS2_DATA_OFFSET) throw new DiskHeaderError('the key slots overlap the data');
  const areas: [number, number][] = [];
  for (const [id, slot] of slots) {
    if (slot.key_size !== keySize)
      throw new DiskHeaderError(`key slot ${id} holds ${slot.key_size} bytes, not ${keySize}`);
    const from = Number(slot.area.offset);
    const to = from + Number(slot.area.size);
    if (from < slotsFrom || to > slotsTo || from >= to) {
      throw new DiskHeaderError(`key slot ${id} lies outside the key slot area`);
    }
    if (areas.some(([otherFrom, otherTo]) => from < otherTo && otherFrom < to)) {
      throw new DiskHeaderError(`key slot ${id} overlaps another`);
    }
    areas.push([from, to]);
  }
  const ids = slots.map(([id]) => id).sort();
  // A slot that is bound to no digest could hold any volume key.
  if ([...digests['0'].keyslots].sort().join() !== ids.join()) {
    throw new DiskHeaderError('the digest does not cover exactly the key slots');
  }
  return {
    uuid: raw.uuid,
    sequence: raw.sequence,
    headerSize: raw.headerSize,
    volume: JSON.stringify([segmentOfVolume, { ...digests['0'], keyslots: [] }]),
    keyslots: ids.map(Number),
    integrity,
    initialized: '0' in tokens ? tokens['0'].diskIsInitialized : undefined,
    keyToken: '1' in tokens && tokens['1'] !== undefined ? keyTokenOf(tokens['1']) : undefined,
  };
}

function keyTokenOf(value: unknown): DiskKeyToken {
  try {
    return readKeyToken(value);
  } catch (cause) {
    throw new DiskHeaderError('the key token of the LUKS2 header is not one of ours', { cause });
  }
}
