import { createHash, randomBytes } from 'node:crypto';
import { concat, equal } from '@asterism/bytes/bytes';
import { toUtf8 } from '@asterism/bytes/encoding';
import { ENVELOPE_KEY_BYTES } from '../../kek.ts';

const SALT_BYTES = 16;
const CHECK_BYTES = 16;

/** Bytes of an envelope key with what it is for: four blocks of AES. */
export const BOUND_KEY_BYTES = ENVELOPE_KEY_BYTES + SALT_BYTES + CHECK_BYTES;

/**
 * AES key wrap (RFC 3394) takes no associated data and gives the same bytes for the same key. So what it wraps is:
 * key (32 bytes), random salt (16), SHA-256 of salt and context (its first 16). Key wrap protects all of it as one.
 */
export function bindKey(key: Uint8Array, context: string): Uint8Array {
  const salt = randomBytes(SALT_BYTES);
  return concat(key, salt, checkOf(salt, context));
}

/**
 * @param bound {@link BOUND_KEY_BYTES} as they were unwrapped
 * @returns a copy of the key; undefined where it was bound to another context
 */
export function unbindKey(bound: Uint8Array, context: string): Uint8Array | undefined {
  if (bound.length !== BOUND_KEY_BYTES) return undefined;
  const salt = bound.subarray(ENVELOPE_KEY_BYTES, ENVELOPE_KEY_BYTES + SALT_BYTES);
  const check = bound.subarray(ENVELOPE_KEY_BYTES + SALT_BYTES);
  return equal(check, checkOf(salt, context)) ? bound.slice(0, ENVELOPE_KEY_BYTES) : undefined;
}

function checkOf(salt: Uint8Array, context: string): Uint8Array {
  return createHash('sha256').update(salt).update(toUtf8(context)).digest().subarray(0, CHECK_BYTES);
}
