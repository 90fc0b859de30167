import { createHash } from 'node:crypto';
import { concat, equal } from '@asterism/bytes/bytes';
import { Reader } from '@asterism/bytes/reader';
import { Writer } from '@asterism/bytes/writer';
import { ParseError } from '@asterism/errors/errors';
import { pathLength, rootOf } from './merkle.ts';

const VERSION = 1;
const CLUSTER_ID_BYTES = 32;
const HASH_BYTES = 16;
const CHECKSUM_BYTES = 4;
/** Everything but the Merkle path and the Shamir share. */
const FIXED_BYTES = 1 + 2 + CLUSTER_ID_BYTES + 4 + 3 + HASH_BYTES + CHECKSUM_BYTES;
/** Bytes that say how many there are in all, at the start of a share. */
export const LENGTH_PREFIX_BYTES = 3;
export const MIN_SHARE_BYTES = FIXED_BYTES + HASH_BYTES + 2;
export const MAX_SHARE_BYTES = 1024;
/** Most shares that one secret is split into. */
export const MAX_SHARES = 16;
/** As the file of the master secret bounds it. */
const MAX_GENERATION = 1_000_000;

/** What all shares of one split have in common. */
export interface SplitHeader {
  /** 32 bytes. */
  readonly clusterId: Uint8Array;
  /** Of the master secret, from 1 on. */
  readonly generation: number;
  /** Shares that are needed: from 2 to `count`. */
  readonly threshold: number;
  /** Shares that there are: from 2 to 16. */
  readonly count: number;
}

/** One of `count` recovery shares. */
export interface Share extends SplitHeader {
  /** From 1 to `count`. */
  readonly index: number;
  /** 16 bytes: hash over the header and the Merkle root of all shares of the split. */
  readonly splitId: Uint8Array;
  /** Merkle path of `body`: 16 bytes for each level, from the leaf up. */
  readonly path: readonly Uint8Array[];
  /** The Shamir share: y coordinates and, in the last byte, x. */
  readonly body: Uint8Array;
}

/** The binary form (README.md). */
export function encodeShare(share: Share): Uint8Array {
  const { clusterId, generation, threshold, count, index, splitId, path, body } = share;
  const length = FIXED_BYTES + path.length * HASH_BYTES + body.length;
  const writer = new Writer().u8(VERSION).u16be(length).bytes(clusterId).u32be(generation);
  writer.u8(threshold).u8(count).u8(index).bytes(splitId);
  for (const hash of path) writer.bytes(hash);
  const start = writer.bytes(body).finish();
  return concat(start, checksum(start));
}

/**
 * Reads the binary form: structure, bounds and checksum. Byte strings are copies. That the share is the one that was
 * split off is for {@link isGenuine} to say.
 * @throws ParseError (ERR_SHARE)
 */
export function parseShare(bytes: Uint8Array): Share {
  const bad = (why: string, cause?: unknown) => new ParseError(why, { code: 'ERR_SHARE', cause });
  if (bytes.length < MIN_SHARE_BYTES || bytes.length > MAX_SHARE_BYTES)
    throw bad(`a share has ${MIN_SHARE_BYTES} to ${MAX_SHARE_BYTES} bytes; these are ${bytes.length}`);
  const { version, length } = parsePrefix(bytes);
  if (version !== VERSION)
    throw bad(`its format ${version} is not known here: it is damaged, or of a newer asterism`);
  if (length !== bytes.length) throw bad(`it says that it has ${length} bytes; there are ${bytes.length}`);
  const end = length - CHECKSUM_BYTES;
  if (!equal(checksum(bytes.subarray(0, end)), bytes.subarray(end)))
    throw bad('its checksum is wrong: it is damaged');

  const reader = new Reader(Uint8Array.from(bytes.subarray(LENGTH_PREFIX_BYTES, end)));
  const clusterId = reader.bytes(CLUSTER_ID_BYTES);
  const generation = reader.u32be();
  const threshold = reader.u8();
  const count = reader.u8();
  const index = reader.u8();
  const splitId = reader.bytes(HASH_BYTES);
  if (generation < 1 || generation > MAX_GENERATION) throw bad(`there is no generation ${generation}`);
  if (count < 2 || count > MAX_SHARES) throw bad(`a secret has 2 to ${MAX_SHARES} shares, not ${count}`);
  if (threshold < 2 || threshold > count) throw bad(`${threshold} of ${count} shares cannot be needed`);
  if (index < 1 || index > count) throw bad(`there is no share ${index} of ${count}`);
  if (reader.remaining < pathLength(count) * HASH_BYTES + 2) throw bad('it is too short');
  const path = Array.from({ length: pathLength(count) }, () => reader.bytes(HASH_BYTES));
  const body = reader.rest();
  // At 0 stands the secret itself: whoever could give a share for it would choose the secret.
  if (body.at(-1) === 0) throw bad('its x coordinate is 0');
  return { clusterId, generation, threshold, count, index, splitId, path, body };
}

/** Version and length (bytes, in all) that a share says of itself; of its first three bytes. */
export function parsePrefix(bytes: Uint8Array): { version: number; length: number } {
  const reader = new Reader(bytes);
  return { version: reader.u8(), length: reader.u16be() };
}

/**
 * Whether the share is the one that its split id stands for. A holder who changes any part of a share changes the
 * split id with it: the share then is one of another split.
 */
export function isGenuine(share: Share): boolean {
  return equal(share.splitId, splitIdOf(share, rootOf(share.body, share.index, share.path)));
}

/** The id (16 bytes) of the split with this header and this Merkle root. */
export function splitIdOf(
  { clusterId, generation, threshold, count }: SplitHeader,
  root: Uint8Array,
): Uint8Array {
  const header = new Writer().bytes(clusterId).u32be(generation).u8(threshold).u8(count).finish();
  const hash = createHash('sha256').update('asterism recovery share v1\0').update(header).update(root);
  return Uint8Array.from(hash.digest().subarray(0, HASH_BYTES));
}

function checksum(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest().subarray(0, CHECKSUM_BYTES);
}
