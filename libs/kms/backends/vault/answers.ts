import { fromBase64 } from '@asterism/bytes/encoding';
import { parseJson } from '@asterism/bytes/json';
import { ParseError } from '@asterism/errors/errors';

/** What can stand in a header. */
export const TOKEN = /^[\x21-\x7e]+$/;
const CIPHERTEXT = /^vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]+={0,2})$/;
/** Bytes of a ciphertext as text; one of 32 bytes has about 100. */
const MAX_CIPHERTEXT = 8192;
/** What authentication tags and nonces of every cipher here take at least. */
const MIN_SEALED = 28;

/** A key as the transit engine describes it. */
export interface TransitKey {
  readonly type: string;
  readonly latestVersion: number;
  readonly minDecryptionVersion: number;
  /** It needs a context for a key derivation of its own. */
  readonly derived: boolean;
  /** Its bytes can be had by export or backup. */
  readonly exportable: boolean;
  readonly softDeleted: boolean;
}

/** A token that AppRole gave. */
export interface Login {
  readonly token: string;
  /** Seconds that it is valid; 0: without end. */
  readonly seconds: number;
}

type Fields = Readonly<Record<string, unknown>>;

/**
 * The body of any answer. An empty one (204) is an object without fields.
 * @throws ParseError it is no JSON object
 */
export function parseBody(text: string): Fields {
  return text === '' ? {} : fields(parseJson(text), 'the answer');
}

/** What the server says went wrong; '' where it says nothing. */
export function errorsOf(body: Fields): string {
  const { errors } = body;
  return Array.isArray(errors) ? errors.filter((error) => typeof error === 'string').join('; ') : '';
}

/** GET transit/keys/NAME. @throws ParseError */
export function parseKey(body: Fields): TransitKey {
  const data = fields(body.data, 'data');
  const flag = (name: string) => {
    const value = data[name] ?? false;
    if (typeof value !== 'boolean') throw new ParseError(`${name} is no truth value`);
    return value;
  };
  return {
    type: text(data, 'type', 64),
    latestVersion: count(data, 'latest_version', 1),
    minDecryptionVersion: count(data, 'min_decryption_version', 0),
    derived: flag('derived'),
    exportable: flag('exportable') || flag('allow_plaintext_backup'),
    softDeleted: flag('soft_deleted'),
  };
}

/** POST transit/encrypt/NAME. @throws ParseError */
export function parseEncrypted(body: Fields): { readonly ciphertext: string; readonly version: number } {
  const ciphertext = text(fields(body.data, 'data'), 'ciphertext', MAX_CIPHERTEXT);
  return { ciphertext, version: versionOf(ciphertext) };
}

/** POST transit/decrypt/NAME. @throws ParseError */
export function parseDecrypted(body: Fields): Uint8Array {
  return fromBase64(text(fields(body.data, 'data'), 'plaintext', 4096));
}

/** POST auth/approle/login. @throws ParseError */
export function parseLogin(body: Fields): Login {
  const auth = fields(body.auth, 'auth');
  const token = text(auth, 'client_token', 16384);
  if (!TOKEN.test(token)) throw new ParseError('client_token is no token');
  return { token, seconds: count(auth, 'lease_duration', 0) };
}

/**
 * The version of the key that made a ciphertext.
 * @param ciphertext `vault:v<version>:<base64>`
 * @throws ParseError it has another form
 */
export function versionOf(ciphertext: string): number {
  const [, version, sealed] = (ciphertext.length <= MAX_CIPHERTEXT && CIPHERTEXT.exec(ciphertext)) || [];
  if (version === undefined || sealed === undefined)
    throw new ParseError('no ciphertext of a transit engine');
  if (fromBase64(sealed).length < MIN_SEALED) throw new ParseError('a ciphertext that is too short');
  return Number(version);
}

function fields(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ParseError(`${what} is no object`);
  return value as Fields;
}

function text(from: Fields, name: string, maxLength: number): string {
  const value = from[name];
  if (typeof value !== 'string' || value === '' || value.length > maxLength)
    throw new ParseError(`${name} is no text of 1 to ${maxLength} characters`);
  return value;
}

function count(from: Fields, name: string, least: number): number {
  const value = from[name];
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > 0xffffffff)
    throw new ParseError(`${name} is no whole number from ${least}`);
  return value;
}
