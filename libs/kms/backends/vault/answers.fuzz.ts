import { fromUtf8, toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import {
  errorsOf,
  parseBody,
  parseDecrypted,
  parseEncrypted,
  parseKey,
  parseLogin,
  versionOf,
} from './answers.ts';

export const name = 'kms/vault-answers';

const sealed = toBase64(new Uint8Array(60));

export const seeds = [
  `{"data":{"ciphertext":"vault:v1:${sealed}","key_version":1}}`,
  `{"data":{"plaintext":"${toBase64(new Uint8Array(32))}"}}`,
  '{"data":{"type":"aes256-gcm96","latest_version":2,"min_decryption_version":1,"derived":false,"keys":{"1":1}}}',
  '{"auth":{"client_token":"s.4rdxnst2Z7qI3iV6gaeSSCGe","lease_duration":60}}',
  '{"errors":["1 error occurred:\\n\\t* permission denied\\n\\n"]}',
].map(toUtf8);

/** Whatever the server sends is refused by ParseError, or has the bounds that its type promises. */
export function run(input: Uint8Array): void {
  const body = parseBody(fromUtf8(input));
  errorsOf(body);
  const encrypted = tried(() => parseEncrypted(body));
  if (encrypted && versionOf(encrypted.ciphertext) !== encrypted.version) throw new Error('two versions');
  const key = tried(() => parseKey(body));
  if (key && !(key.latestVersion >= 1)) throw new Error('a key without a version');
  tried(() => parseDecrypted(body));
  tried(() => parseLogin(body));
}

function tried<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (error instanceof ParseError) return undefined;
    throw error;
  }
}
