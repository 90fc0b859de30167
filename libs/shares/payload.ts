import { createHash } from 'node:crypto';
import { equal } from '@asterism/bytes/bytes';
import { Reader } from '@asterism/bytes/reader';
import { Writer } from '@asterism/bytes/writer';
import { AsterismError, ParseError } from '@asterism/errors/errors';

const VERSION = 1;
const DIGEST_BYTES = 8;

/** What shares give together; has the form of the master secret of a workspace. */
export interface SharedSecret {
  /** 16 to 255 bytes. */
  readonly key: Uint8Array;
  /** 32 to 255 bytes. */
  readonly salt: Uint8Array;
  /** From 1 on; 1 where it is missing. It is in the clear in every share, and not in the payload. */
  readonly generation?: number;
  /** 32 bytes. */
  readonly measurementSecret?: Uint8Array;
}

/**
 * The bytes that are split. Digest (8 bytes) over all before: finds out a combination that went wrong.
 * @throws AsterismError (ERR_SPLIT) for a secret of other lengths than those of {@link SharedSecret}
 */
export function encodePayload({ key, salt, measurementSecret }: SharedSecret): Uint8Array {
  const bound = (name: string, { length }: Uint8Array, from: number, to: number) => {
    if (length < from || length > to)
      throw new AsterismError('ERR_SPLIT', `the ${name} has ${length} bytes; shares hold ${from} to ${to}`);
  };
  bound('key of the master secret', key, 16, 255);
  bound('salt of the master secret', salt, 32, 255);
  if (measurementSecret !== undefined) bound('measurementSecret', measurementSecret, 32, 32);
  const measurement = measurementSecret ?? new Uint8Array();
  const body = new Writer().u8(VERSION);
  for (const part of [key, salt, measurement]) body.u8(part.length).bytes(part);
  const bytes = body.finish();
  try {
    return new Writer().bytes(bytes).bytes(digest(bytes)).finish();
  } finally {
    bytes.fill(0);
  }
}

/** Reads what {@link encodePayload} wrote. Byte strings are copies. @throws ParseError (ERR_SHARES_PAYLOAD) */
export function parsePayload(bytes: Uint8Array, generation: number): SharedSecret {
  const bad = (why: string, cause?: unknown) =>
    new ParseError(`the shares do not give a master secret: ${why}`, { code: 'ERR_SHARES_PAYLOAD', cause });
  const end = bytes.length - DIGEST_BYTES;
  if (end < 0 || !equal(digest(bytes.subarray(0, end)), bytes.subarray(end)))
    throw bad('the digest of what they give is wrong');
  const reader = new Reader(bytes.subarray(0, end));
  const read = (what: string) => Uint8Array.from(reader.bytes(reader.u8(what), what));
  try {
    const version = reader.u8('version');
    if (version !== VERSION) throw bad(`its version ${version} is not known here; use a newer asterism`);
    const [key, salt, measurementSecret] = [read('key'), read('salt'), read('measurement secret')];
    reader.end('the payload');
    if (key.length < 16 || salt.length < 32 || ![0, 32].includes(measurementSecret.length))
      throw bad('its parts have wrong lengths');
    return {
      key,
      salt,
      // As a workspace writes it: the first generation is not named.
      ...(generation === 1 ? {} : { generation }),
      ...(measurementSecret.length === 0 ? {} : { measurementSecret }),
    };
  } catch (error) {
    if (error instanceof ParseError && error.code !== 'ERR_SHARES_PAYLOAD')
      throw bad('it is too short', error);
    throw error;
  }
}

function digest(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest().subarray(0, DIGEST_BYTES);
}
