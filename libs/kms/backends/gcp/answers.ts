import { fromBase64, fromUtf8 } from '@asterism/bytes/encoding';
import { parseJson } from '@asterism/bytes/json';
import { ParseError } from '@asterism/errors/errors';

/** Bytes of a ciphertext, as WrappedKey allows them. */
const MAX_CIPHERTEXT = 8192;
/** Bytes of a plaintext; a key has 32. */
const MAX_PLAINTEXT = 1024;
const MAX_NAME = 1024;

/** Answer of `cryptoKeys.encrypt`. */
export interface Encrypted {
  /** Name of the cryptoKeyVersion that encrypted. */
  readonly name: string;
  readonly ciphertext: Uint8Array;
  readonly ciphertextCrc32c: number;
  /** The service got the plaintext and the associated data as we sent them. */
  readonly verified: boolean;
}

/** Answer of `cryptoKeys.decrypt`. */
export interface Decrypted {
  readonly plaintext: Uint8Array;
  readonly plaintextCrc32c: number;
}

/** A `CryptoKey`. */
export interface CryptoKey {
  readonly name: string;
  /** e.g. ENCRYPT_DECRYPT */
  readonly purpose: string;
  /** The version that encrypts; there may be none. */
  readonly primary:
    | {
        readonly name: string;
        /** e.g. ENABLED, DISABLED, DESTROY_SCHEDULED */
        readonly state: string;
        readonly algorithm: string;
        readonly protectionLevel: string;
      }
    | undefined;
}

type Fields = Readonly<Record<string, unknown>>;

/** @throws ParseError */
export function parseEncrypted(answer: Uint8Array): Encrypted {
  const fields = objectOf(parseJson(fromUtf8(answer)));
  return {
    name: text(fields, 'name', MAX_NAME),
    ciphertext: bytes(fields, 'ciphertext', MAX_CIPHERTEXT),
    ciphertextCrc32c: checksum(fields, 'ciphertextCrc32c'),
    verified:
      fields.verifiedPlaintextCrc32c === true && fields.verifiedAdditionalAuthenticatedDataCrc32c === true,
  };
}

/** @throws ParseError */
export function parseDecrypted(answer: Uint8Array): Decrypted {
  const fields = objectOf(parseJson(fromUtf8(answer)));
  return {
    plaintext: bytes(fields, 'plaintext', MAX_PLAINTEXT),
    plaintextCrc32c: checksum(fields, 'plaintextCrc32c'),
  };
}

/** @throws ParseError */
export function parseCryptoKey(answer: Uint8Array): CryptoKey {
  const fields = objectOf(parseJson(fromUtf8(answer)));
  const primary = fields.primary === undefined ? undefined : objectOf(fields.primary);
  return {
    name: text(fields, 'name', MAX_NAME),
    purpose: enumerated(fields, 'purpose'),
    primary: primary && {
      name: text(primary, 'name', MAX_NAME),
      state: enumerated(primary, 'state'),
      algorithm: enumerated(primary, 'algorithm'),
      protectionLevel: enumerated(primary, 'protectionLevel'),
    },
  };
}

function objectOf(value: unknown): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ParseError('no JSON object');
  return value as Fields;
}

function text(fields: Fields, name: string, maxLength: number): string {
  const value = fields[name];
  if (typeof value !== 'string' || value === '' || value.length > maxLength || !/^[\x21-\x7e]+$/.test(value))
    throw new ParseError(`${name} is no text of 1 to ${maxLength} characters`);
  return value;
}

/** Names of enumerated values; one that is not set is left out of the JSON. */
function enumerated(fields: Fields, name: string): string {
  const value = fields[name] ?? 'UNSPECIFIED';
  if (typeof value !== 'string' || !/^[A-Z][A-Z0-9_]{0,63}$/.test(value))
    throw new ParseError(`${name} is no name of a value`);
  return value;
}

function bytes(fields: Fields, name: string, maxLength: number): Uint8Array {
  const value = fields[name];
  if (typeof value !== 'string' || value.length > 4 * Math.ceil(maxLength / 3))
    throw new ParseError(`${name} is not ${maxLength} bytes at most`);
  const decoded = fromBase64(value);
  if (decoded.length === 0 || decoded.length > maxLength)
    throw new ParseError(`${name} has ${decoded.length} bytes`);
  return decoded;
}

/** A CRC32C: an Int64Value, which JSON holds as text. */
function checksum(fields: Fields, name: string): number {
  const value = fields[name];
  if (typeof value !== 'string' || !/^(0|[1-9][0-9]{0,9})$/.test(value) || Number(value) > 0xffffffff)
    throw new ParseError(`${name} is no CRC32C`);
  return Number(value);
}
