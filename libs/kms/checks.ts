import { KmsError } from './errors.ts';
import { ENVELOPE_KEY_BYTES } from './kek.ts';
import { MAX_OBJECT_BYTES, OBJECT_NAME } from './store.ts';

/** @throws KmsError ERR_KMS_SETTINGS; for every Kek.wrap */
export function checkEnvelopeKey(key: Uint8Array): void {
  if (key.length !== ENVELOPE_KEY_BYTES)
    throw new KmsError(
      'ERR_KMS_SETTINGS',
      `an envelope key has ${ENVELOPE_KEY_BYTES} bytes, not ${key.length}`,
    );
}

/** @throws KmsError ERR_KMS_ANSWER the KMS unwrapped something else than an envelope key; for every Kek.unwrap */
export function checkUnwrapped(key: Uint8Array, where: string): void {
  if (key.length !== ENVELOPE_KEY_BYTES)
    throw new KmsError('ERR_KMS_ANSWER', `${where} unwrapped ${key.length} bytes, not ${ENVELOPE_KEY_BYTES}`);
}

/** @throws KmsError ERR_STORE_SETTINGS; for every call of a DekStore */
export function checkObject(name: string, bytes?: Uint8Array): void {
  if (!OBJECT_NAME.test(name))
    throw new KmsError('ERR_STORE_SETTINGS', 'the name of a stored key is malformed');
  if (bytes !== undefined && bytes.length > MAX_OBJECT_BYTES)
    throw new KmsError('ERR_STORE_SETTINGS', `a stored key has ${MAX_OBJECT_BYTES} bytes at most`);
}
