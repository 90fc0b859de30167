import { fromBase64, fromUtf8, toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { z } from 'zod';
import { DISK_KEY_NAME } from './key-name.ts';

/** The LUKS2 token that says which keys open the disk. */
export const KEY_TOKEN = 'asterism-disk-key';

/**
 * Bytes of a token at most. The JSON of our headers has 12,288 bytes, and without this token needs some 2,200 with two
 * key slots.
 */
export const MAX_KEY_TOKEN_BYTES = 8192;

/** One key of a disk, as whoever has the key encryption key finds it. */
export interface NamedDiskKey {
  /** `<generation>.<change>`, see DiskKeyName. */
  readonly name: string;
  /** As a KMS wrapped it; undefined where keys are derived. */
  readonly envelope?: Uint8Array | undefined;
}

/**
 * What the header of a member's disk says of its keys, so that it can be recovered where no Kubernetes runs. The disk is
 * the provider's: this is a hint, and a false one leads to a key that does not open the disk.
 */
export interface DiskKeyToken {
  /** One, or while the key is being changed two. */
  readonly keys: readonly NamedDiskKey[];
  /** The measurement secret as a KMS wrapped it; undefined where it is derived. */
  readonly measurementSecret?: Uint8Array | undefined;
}

const envelope = z
  .string()
  .min(4)
  .max(MAX_KEY_TOKEN_BYTES)
  .regex(/^[A-Za-z0-9+/]+={0,2}$/);

/** The token as it stands in the header. */
export const keyTokenSchema = z.strictObject({
  type: z.literal(KEY_TOKEN),
  keyslots: z.tuple([]),
  keys: z
    .array(z.strictObject({ name: z.string().regex(DISK_KEY_NAME), envelope: envelope.optional() }))
    .min(1)
    .max(2),
  measurementSecret: envelope.optional(),
});

/**
 * The token as JSON, in the one form that {@link parseKeyToken} reads.
 * @throws ParseError ERR_KEY_TOKEN it would be none, or has more than {@link MAX_KEY_TOKEN_BYTES}
 */
export function renderKeyToken(token: DiskKeyToken): Uint8Array {
  const bytes = toUtf8(print(token));
  parseKeyToken(bytes);
  return bytes;
}

/** @throws ParseError ERR_KEY_TOKEN */
export function parseKeyToken(bytes: Uint8Array): DiskKeyToken {
  // Before it is read at all.
  if (bytes.length > MAX_KEY_TOKEN_BYTES) throw bad(`it has more than ${MAX_KEY_TOKEN_BYTES} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(fromUtf8(bytes));
  } catch (cause) {
    throw bad('it is not JSON', cause);
  }
  const token = readKeyToken(value);
  // One form only: no names twice, no white space, no second way to write the same.
  if (print(token) !== fromUtf8(bytes)) throw bad('it is not in the form that is written here');
  return token;
}

/**
 * The token of its JSON value, as it comes out of a header.
 * @throws ParseError ERR_KEY_TOKEN
 */
export function readKeyToken(value: unknown): DiskKeyToken {
  const parsed = keyTokenSchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw bad(`${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`);
  }
  const { keys, measurementSecret } = parsed.data;
  if (keys[0]?.name === keys[1]?.name) throw bad('both keys have the same name');
  const token = {
    keys: keys.map(({ name, envelope }) => ({ name, ...(envelope && { envelope: decode(envelope) }) })),
    ...(measurementSecret && { measurementSecret: decode(measurementSecret) }),
  };
  if (print(token).length > MAX_KEY_TOKEN_BYTES) throw bad(`it has more than ${MAX_KEY_TOKEN_BYTES} bytes`);
  return token;
}

function decode(text: string): Uint8Array {
  try {
    return fromBase64(text);
  } catch (cause) {
    throw bad('an envelope is not base64', cause);
  }
}

function print({ keys, measurementSecret }: DiskKeyToken): string {
  return JSON.stringify({
    type: KEY_TOKEN,
    keyslots: [],
    keys: keys.map(({ name, envelope }) => ({ name, ...(envelope && { envelope: toBase64(envelope) }) })),
    ...(measurementSecret && { measurementSecret: toBase64(measurementSecret) }),
  });
}

function bad(why: string, cause?: unknown): ParseError {
  return new ParseError(`the disk's key token cannot be used: ${why}`, { code: 'ERR_KEY_TOKEN', cause });
}
