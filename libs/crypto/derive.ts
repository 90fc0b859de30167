import { createHmac, createSecretKey } from 'node:crypto';
import { toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';

/** Most that HKDF-SHA256 can give (RFC 5869: 255 blocks of 32 bytes). */
export const MAX_DERIVED_BYTES = 8160;
const HASH_BYTES = 32;

/** Data keys are named by what they are for; on the wire the name travels without this prefix. */
export const DEK_PREFIX = 'key-';

/** Name of the DEK that identifies the cluster's measurements. */
export const MEASUREMENT_SECRET_ID = `${DEK_PREFIX}measurementSecret`;

const CLUSTER_ID_INFO = `${DEK_PREFIX}clusterID`;

/** Derives keys of one secret and salt. @throws AsterismError (ERR_DERIVE) as {@link deriveKey} */
export type KeyDeriver = (info: string, length: number) => Uint8Array;

/**
 * HKDF-SHA256 (RFC 5869) whose first half is done: for who derives many keys of one secret. (Node's own hkdf does it all
 * again for each key, at eight times the cost.)
 *
 * @param salt not secret, but as fixed as the secret: another salt gives other keys
 * @throws AsterismError (ERR_DERIVE) for an empty secret or salt
 */
export function keyDeriver(secret: Uint8Array, salt: Uint8Array): KeyDeriver {
  // HKDF itself would take empty inputs: a key that anybody can compute.
  if (secret.length === 0)
    throw new AsterismError('ERR_DERIVE', 'a key cannot be derived from an empty secret');
  if (salt.length === 0) throw new AsterismError('ERR_DERIVE', 'a key cannot be derived with an empty salt');
  // 2.2: extract
  const pseudorandomKey = createSecretKey(createHmac('sha256', salt).update(secret).digest());
  return (info, length) => {
    if (info === '') throw new AsterismError('ERR_DERIVE', 'a derived key needs a name');
    if (!Number.isInteger(length) || length < 1 || length > MAX_DERIVED_BYTES) {
      throw new AsterismError(
        'ERR_DERIVE',
        `a derived key has 1 to ${MAX_DERIVED_BYTES} bytes, not ${length}`,
      );
    }
    // 2.3: expand
    const name = toUtf8(info);
    const key = new Uint8Array(length);
    let block = new Uint8Array();
    for (let at = 0, counter = 1; at < length; at += HASH_BYTES, counter++) {
      const hmac = createHmac('sha256', pseudorandomKey).update(block).update(name);
      block = new Uint8Array(hmac.update(Uint8Array.of(counter)).digest());
      key.set(block.subarray(0, length - at), at);
    }
    return key;
  };
}

/**
 * HKDF-SHA256 (RFC 5869): a key of `length` bytes (1 to 8160) that only holders of `secret` can compute.
 *
 * @param salt not secret, but as fixed as the secret: another salt gives other keys
 * @param info what the key is for; for data keys the DEK id with its prefix
 * @throws AsterismError (ERR_DERIVE) for an empty secret, salt or info, and for an impossible length
 */
export function deriveKey(secret: Uint8Array, salt: Uint8Array, info: string, length: number): Uint8Array {
  return keyDeriver(secret, salt)(info, length);
}

/**
 * The cluster id (32 bytes): what PCR 15 of every member is extended with.
 *
 * @param measurementSecret DEK {@link MEASUREMENT_SECRET_ID}, 32 bytes
 * @param measurementSalt chosen at initialisation, 32 bytes
 */
export function clusterId(measurementSecret: Uint8Array, measurementSalt: Uint8Array): Uint8Array {
  return deriveKey(measurementSecret, measurementSalt, CLUSTER_ID_INFO, 32);
}
