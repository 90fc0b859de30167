import { KmsError } from '../../errors.ts';
import type { WrappedKey } from '../../kek.ts';

/** `mechanism` of what this backend wraps. Constellation v2.6 wrote none, which reads as 0: RSA-OAEP-256. */
export const MECHANISMS = { 'RSA-OAEP-256': 1, A256KW: 2 } as const;
export type Algorithm = keyof typeof MECHANISMS;

/** Versions of keys, of Key Vault and Managed HSM alike. */
export const KEY_VERSION = /^[0-9a-fA-F]{32}$/;

const MAX_WRAPPED_BYTES = 8192;
const RSA_MODULUS_BYTES = [256, 384, 512];

/** What a wrapped key asks of Key Vault. */
export interface UnwrapRequest {
  readonly version: string;
  readonly algorithm: Algorithm;
  readonly bytes: Uint8Array;
}

/**
 * What to ask for, of a blob that anybody may have written.
 *
 * @param keyUrl `https://<vault>/keys/<name>` of the settings: a blob of another vault or key is refused, and no address
 *   is ever taken from it
 * @param v26 it has no context: v2.6 wrote the version alone as key id
 * @throws KmsError ERR_KMS_UNWRAP
 */
export function readWrappedKey(wrapped: WrappedKey, keyUrl: string, v26: boolean): UnwrapRequest {
  const refuse = (why: string) => new KmsError('ERR_KMS_UNWRAP', `the wrapped key ${why}`);
  const { mechanism, keyId, wrappedKey } = wrapped;
  if (wrappedKey.length === 0 || wrappedKey.length > MAX_WRAPPED_BYTES) throw refuse('has no such length');
  const version = v26 && KEY_VERSION.test(keyId) ? keyId : versionOf(keyId, keyUrl);
  if (version === undefined) throw refuse(`is not of the key ${keyUrl}: it was wrapped by another one`);
  if (mechanism === MECHANISMS.A256KW) return { version, algorithm: 'A256KW', bytes: wrappedKey };
  if (mechanism === MECHANISMS['RSA-OAEP-256'] && !v26)
    return { version, algorithm: 'RSA-OAEP-256', bytes: wrappedKey };
  if (v26 && (mechanism === 0 || mechanism === 1))
    return { version, algorithm: 'RSA-OAEP-256', bytes: textForm(wrappedKey) ?? wrappedKey };
  throw refuse('was wrapped by a mechanism that is not known');
}

function versionOf(keyId: string, keyUrl: string): string | undefined {
  const version = keyId.slice(keyUrl.length + 1);
  return keyId.toLowerCase() === `${keyUrl}/${version}`.toLowerCase() && KEY_VERSION.test(version)
    ? version
    : undefined;
}

/** v2.6 stored the base64url text of Key Vault's answer, newer versions of its library the bytes. */
function textForm(wrapped: Uint8Array): Uint8Array | undefined {
  const text = Buffer.from(wrapped).toString('latin1');
  if (!/^[A-Za-z0-9_-]+={0,2}$/.test(text)) return undefined;
  const bytes = Buffer.from(text, 'base64url');
  return RSA_MODULUS_BYTES.includes(bytes.length) ? bytes : undefined;
}
