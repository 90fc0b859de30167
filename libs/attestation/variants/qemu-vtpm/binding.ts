import { concat } from '@asterism/bytes/bytes';

const sha256 = async (...parts: Uint8Array[]): Promise<Uint8Array> =>
  new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(concat(...parts))));

/** How the TPM's qualifying data is made: `v2.6`, or with the instance information bound too (`v2.17`). */
export type Binding = 'v2.6' | 'v2.17';

/**
 * Qualifying data (32 bytes) that ties user data and nonce to a quote.
 * @param userData 32 bytes in aTLS
 * @param nonce 32 bytes; a fixed length on both sides is what makes the plain concatenation unambiguous
 */
export async function qualifyingData(
  binding: Binding,
  userData: Uint8Array,
  nonce: Uint8Array,
  instanceInfo: Uint8Array | undefined,
): Promise<Uint8Array> {
  const inner = await sha256(userData, nonce);
  return binding === 'v2.6' ? inner : sha256(instanceInfo ?? new Uint8Array(), inner);
}
