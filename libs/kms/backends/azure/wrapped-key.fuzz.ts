import { fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import { KmsError } from '../../errors.ts';
import { KEY_VERSION, readWrappedKey } from './wrapped-key.ts';

export const name = 'kms/azure-wrapped-key';

const KEY_URL = 'https://asterism.vault.azure.net/keys/kek';
const VERSION = '0123456789abcdef0123456789abcdef';

export const seeds = [
  toUtf8(`0\n${VERSION}\n${'A'.repeat(342)}`),
  toUtf8(`1\n${KEY_URL}/${VERSION}\n${'A'.repeat(256)}`),
  toUtf8(`2\n${KEY_URL}/${VERSION}\n${'A'.repeat(40)}`),
];

/** Mechanism, key id and bytes, a line each: what is read names a version, of this key, and no address. */
export function run(input: Uint8Array): void {
  const [mechanism = '', keyId = '', ...rest] = fromUtf8(input).split('\n');
  const wrapped = { mechanism: Number(mechanism), keyId, wrappedKey: toUtf8(rest.join('\n')) };
  for (const v26 of [false, true]) {
    try {
      const { version, bytes } = readWrappedKey(wrapped, KEY_URL, v26);
      if (!KEY_VERSION.test(version)) throw new Error('no version');
      if (!v26 && keyId.toLowerCase() !== `${KEY_URL}/${version}`.toLowerCase())
        throw new Error('another key');
      if (bytes.length > wrapped.wrappedKey.length) throw new Error('it grew');
    } catch (error) {
      if (!(error instanceof KmsError) || error.code !== 'ERR_KMS_UNWRAP') throw error;
    }
  }
}
