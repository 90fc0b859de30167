import { equal } from '@asterism/bytes/bytes';
import { ObjectAttribute as A, Alg, Curve } from './constants.ts';
import { encodePublicArea, type PublicArea } from './structures.ts';

const NONE = new Uint8Array();

/**
 * A restricted signing key that never leaves its TPM. NO_DA: without it a TPM that lost power a few times locks the
 * key out (dictionary-attack protection), and an attestation key has no secret that could be guessed.
 */
export const AK_ATTRIBUTES =
  A.FIXED_TPM | A.FIXED_PARENT | A.SENSITIVE_DATA_ORIGIN | A.USER_WITH_AUTH | A.NO_DA | A.RESTRICTED | A.SIGN;

export type AkType = 'ecc-p256' | 'rsa-2048';

/** Template of an attestation key: ECDSA P-256 or RSASSA 2048, both with SHA-256. */
export function akTemplate(type: AkType): PublicArea {
  const common = { nameAlg: Alg.SHA256, attributes: AK_ATTRIBUTES, authPolicy: NONE, schemeHash: Alg.SHA256 };
  return type === 'ecc-p256'
    ? { ...common, scheme: Alg.ECDSA, key: { type: 'ecc', curve: Curve.NIST_P256, x: NONE, y: NONE } }
    : { ...common, scheme: Alg.RSASSA, key: { type: 'rsa', bits: 2048, exponent: 65537, modulus: NONE } };
}

/** Whether a key was made by a template: the same in everything but the key itself. */
export function isOfTemplate(area: PublicArea, template: PublicArea): boolean {
  const key = area.key.type === 'rsa' ? { ...area.key, modulus: NONE } : { ...area.key, x: NONE, y: NONE };
  return equal(encodePublicArea({ ...area, key }), encodePublicArea(template));
}
