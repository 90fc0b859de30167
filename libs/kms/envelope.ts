import { createCipheriv, createDecipheriv, randomFillSync } from 'node:crypto';
import { concat, zero } from '@asterism/bytes/bytes';
import { fromBase64, fromHex, fromUtf8, toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { parseJson } from '@asterism/bytes/json';
import { ParseError, VerificationError } from '@asterism/errors/errors';
import { checkUnwrapped } from './checks.ts';
import { isGeneration } from './generation.ts';
import { ENVELOPE_KEY_BYTES, type Kek, type WrappedKey } from './kek.ts';
import { MAX_OBJECT_BYTES, OBJECT_NAME } from './store.ts';

const VERSION = 'asterism/v1';
const CIPHER = 'aes-256-gcm';
const IV_BYTES = 12;
const TAG_BYTES = 16;
/** Longest key that is stored: of a disk with integrity. */
export const MAX_DEK_BYTES = 96;
const MAX_WRAPPED_BYTES = 8192;
const MAX_KEY_ID = 2048;

/** What a wrapped DEK is for. */
export interface Binding {
  readonly dekId: string;
  /** 64 hexadecimal digits in lower case. */
  readonly clusterId: string;
  readonly generation: number;
}

/** A wrapped DEK as it is stored (README, "Envelope"). What it says is not verified before it is opened. */
export interface Envelope {
  /** undefined: written by v2.6. */
  readonly binding: Binding | undefined;
  /** The DEK, encrypted, and the tag: 17 to 112 bytes. */
  readonly ciphertext: Uint8Array;
  /** 12 bytes. */
  readonly iv: Uint8Array;
  /** The envelope key. */
  readonly wrapped: WrappedKey;
}

/** @throws ParseError ERR_ENVELOPE */
export function parseEnvelope(bytes: Uint8Array): Envelope {
  if (bytes.length > MAX_OBJECT_BYTES) throw bad(`it has more than ${MAX_OBJECT_BYTES} bytes`);
  let json: unknown;
  try {
    json = parseJson(fromUtf8(bytes));
  } catch (cause) {
    throw bad('it is not JSON', cause);
  }
  const bound = isObject(json) && 'version' in json;
  const names = bound ? ['version', 'dek_id', 'cluster_id', 'generation'] : [];
  const envelope = fields(json, [...names, 'ciphertext', 'iv', 'key_info']);
  const info = fields(envelope.key_info, ['key_id', 'wrapped_key'], ['mechanism']);
  const { mechanism = 0, key_id: keyId } = info;
  if (!Number.isSafeInteger(mechanism) || (mechanism as number) < 0) throw bad('mechanism is no number');
  if (typeof keyId !== 'string' || keyId === '' || keyId.length > MAX_KEY_ID) throw bad('key_id is no name');
  return {
    binding: bound ? binding(envelope) : undefined,
    ciphertext: binary(envelope, 'ciphertext', TAG_BYTES + 1, TAG_BYTES + MAX_DEK_BYTES),
    iv: binary(envelope, 'iv', IV_BYTES, IV_BYTES),
    wrapped: {
      mechanism: mechanism as number,
      keyId,
      wrappedKey: binary(info, 'wrapped_key', 1, MAX_WRAPPED_BYTES),
    },
  };
}

type Fields = Readonly<Record<string, unknown>>;

const bad = (why: string, cause?: unknown) =>
  new ParseError(`not a wrapped key: ${why}`, { code: 'ERR_ENVELOPE', cause });

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function fields(value: unknown, needed: readonly string[], allowed: readonly string[] = []): Fields {
  if (!isObject(value)) throw bad('an object is missing');
  for (const name of needed) if (!Object.hasOwn(value, name)) throw bad(`${name} is missing`);
  if (Object.keys(value).some((name) => !needed.includes(name) && !allowed.includes(name)))
    throw bad('it has a field of unknown name');
  return value;
}

function binding(envelope: Fields): Binding {
  const { version, dek_id: dekId, cluster_id: clusterId, generation } = envelope;
  if (version !== VERSION) throw bad(`its version is not ${VERSION}; a newer Asterism may read it`);
  if (typeof dekId !== 'string' || !OBJECT_NAME.test(dekId)) throw bad('dek_id is no name of a key');
  if (typeof clusterId !== 'string' || !/^[0-9a-f]{64}$/.test(clusterId))
    throw bad('cluster_id has not 64 hexadecimal digits');
  if (!isGeneration(generation)) throw bad('generation is no number from 1');
  return { dekId, clusterId, generation };
}

function binary(from: Fields, name: string, minimum: number, maximum: number): Uint8Array {
  const text = from[name];
  if (typeof text !== 'string') throw bad(`${name} is no text`);
  let bytes: Uint8Array;
  try {
    bytes = fromBase64(text);
  } catch (cause) {
    throw bad(`${name} is not base64`, cause);
  }
  if (bytes.length < minimum || bytes.length > maximum) throw bad(`${name} has a length that cannot be`);
  return bytes;
}

export function renderEnvelope({ binding, ciphertext, iv, wrapped }: Envelope): Uint8Array {
  return toUtf8(
    JSON.stringify({
      ...(binding !== undefined && {
        version: VERSION,
        dek_id: binding.dekId,
        cluster_id: binding.clusterId,
        generation: binding.generation,
      }),
      ciphertext: toBase64(ciphertext),
      iv: toBase64(iv),
      key_info: {
        mechanism: wrapped.mechanism,
        key_id: wrapped.keyId,
        wrapped_key: toBase64(wrapped.wrappedKey),
      },
    }),
  );
}

/**
 * Associated data of AES-256-GCM: version, cluster id (32 bytes), DEK id, generation (4 bytes), each behind its length in
 * 4 bytes; numbers are big-endian.
 */
export function associatedData({ dekId, clusterId, generation }: Binding): Uint8Array {
  const parts = [toUtf8(VERSION), fromHex(clusterId), toUtf8(dekId), number(generation)];
  return concat(...parts.flatMap((part) => [number(part.length), part]));
}

function number(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

/** What the KMS is told that the envelope key is for. */
function context({ dekId, clusterId, generation }: Binding): string {
  return `${VERSION} cluster=${clusterId} dek=${dekId} generation=${generation}`;
}

/**
 * Wraps a DEK of 1 to {@link MAX_DEK_BYTES} bytes under a fresh envelope key.
 * @throws KmsError | KmsUnavailableError
 */
export async function sealDek(
  kek: Kek,
  binding: Binding,
  dek: Uint8Array,
  signal?: AbortSignal,
): Promise<Envelope> {
  const key = randomFillSync(new Uint8Array(ENVELOPE_KEY_BYTES));
  try {
    const iv = randomFillSync(new Uint8Array(IV_BYTES));
    const cipher = createCipheriv(CIPHER, key, iv).setAAD(associatedData(binding));
    const ciphertext = concat(cipher.update(dek), cipher.final(), cipher.getAuthTag());
    return { binding, ciphertext, iv, wrapped: await kek.wrap(key, context(binding), signal) };
  } finally {
    zero(key);
  }
}

/**
 * Whether an envelope says that it is what is wanted. Only {@link openDek} knows whether that is true.
 * @throws VerificationError ERR_ENVELOPE_ID | ERR_ENVELOPE_CLUSTER | ERR_ENVELOPE_GENERATION
 */
export function checkBinding(found: Binding, wanted: Binding): void {
  const refuse = (code: string, why: string) => {
    throw new VerificationError(code, `the store gave a wrapped key for ${wanted.dekId} that is ${why}`);
  };
  if (found.dekId !== wanted.dekId) refuse('ERR_ENVELOPE_ID', `that of ${found.dekId}: it swapped them`);
  if (found.clusterId !== wanted.clusterId)
    refuse(
      'ERR_ENVELOPE_CLUSTER',
      'of another cluster: give each cluster a prefix of its own (kms.store.prefix)',
    );
  if (found.generation !== wanted.generation)
    refuse(
      'ERR_ENVELOPE_GENERATION',
      `of generation ${found.generation}, not ${wanted.generation}: an old copy, or the KEK was rotated`,
    );
}

/**
 * Unwraps a DEK.
 *
 * @param wanted what it must be for. An envelope of v2.6 says nothing of that: whoever reads one has decided to.
 * @returns 1 to {@link MAX_DEK_BYTES} bytes; the caller zeroes them
 * @throws VerificationError as {@link checkBinding}, and ERR_ENVELOPE_FORGED
 * @throws KmsError | KmsUnavailableError
 */
export async function openDek(
  kek: Kek,
  envelope: Envelope,
  wanted: Binding,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const { binding, ciphertext, iv, wrapped } = envelope;
  if (binding !== undefined) checkBinding(binding, wanted);
  const key = await kek.unwrap(wrapped, binding && context(binding), signal);
  try {
    checkUnwrapped(key, 'the KMS');
    const decipher = createDecipheriv(CIPHER, key, iv, { authTagLength: TAG_BYTES });
    if (binding !== undefined) decipher.setAAD(associatedData(binding));
    decipher.setAuthTag(ciphertext.subarray(-TAG_BYTES));
    const dek = decipher.update(ciphertext.subarray(0, -TAG_BYTES));
    try {
      decipher.final();
      return Uint8Array.from(dek);
    } catch (cause) {
      throw new VerificationError(
        'ERR_ENVELOPE_FORGED',
        `the wrapped key that the store gave for ${wanted.dekId} was changed: restore it from a copy`,
        { cause },
      );
    } finally {
      zero(dek);
    }
  } finally {
    zero(key);
  }
}
