import { toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { parseCryptoKey, parseDecrypted, parseEncrypted } from './answers.ts';

export const name = 'kms/gcp-answers';

const NAME = 'projects/project/locations/global/keyRings/ring/cryptoKeys/key';
const sealed = toBase64(new Uint8Array(64));

export const seeds = [
  `{"name":"${NAME}/cryptoKeyVersions/1","ciphertext":"${sealed}","ciphertextCrc32c":"1426190505","verifiedPlaintextCrc32c":true,"verifiedAdditionalAuthenticatedDataCrc32c":true,"protectionLevel":"SOFTWARE"}`,
  `{"plaintext":"${toBase64(new Uint8Array(32))}","plaintextCrc32c":"2324772522","usedPrimary":true,"protectionLevel":"HSM"}`,
  `{"name":"${NAME}","primary":{"name":"${NAME}/cryptoKeyVersions/2","state":"ENABLED","protectionLevel":"SOFTWARE","algorithm":"GOOGLE_SYMMETRIC_ENCRYPTION"},"purpose":"ENCRYPT_DECRYPT","createTime":"2026-01-01T00:00:00Z"}`,
].map(toUtf8);

/** Whatever is answered is refused by ParseError, or has the bounds that its type promises. */
export function run(input: Uint8Array): void {
  const encrypted = tried(() => parseEncrypted(input));
  if (encrypted && (encrypted.ciphertext.length < 1 || encrypted.ciphertext.length > 8192))
    throw new Error('a ciphertext out of bounds');
  const decrypted = tried(() => parseDecrypted(input));
  if (decrypted && !(decrypted.plaintextCrc32c >= 0 && decrypted.plaintextCrc32c < 2 ** 32))
    throw new Error('no CRC32C');
  tried(() => parseCryptoKey(input));
}

function tried<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (error instanceof ParseError) return undefined;
    throw error;
  }
}
