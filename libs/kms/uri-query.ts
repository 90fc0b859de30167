import { ParseError } from '@asterism/errors/errors';

/** Longest URI of a KMS or a store, in characters. */
const MAX_URI = 16 * 1024;
const MAX_PARAMETERS = 32;

/** Why a URI is not read. It never holds a value of the URI. */
export const badUri = (why: string) => new ParseError(why, { code: 'ERR_KMS_URI' });

export interface RawUri {
  /** What stands before the query. */
  readonly base: string;
  /** Every one has a value, percent-decoded once. */
  readonly parameters: ReadonlyMap<string, string>;
}

/**
 * `base?name=value&name=value` (RFC 3986, its query): percent-encoded once, UTF-8, each name once, no value empty, no
 * fragment. `+` is a plus. An escape of a character that needs none (a letter, a digit, `-._~`) is refused: no encoder
 * writes one, so it is part of a value that somebody did not encode, as v2.6 did with the credentials of AWS.
 *
 * @throws ParseError ERR_KMS_URI
 */
export function parseUri(text: string): RawUri {
  if (text.length > MAX_URI) throw badUri(`the URI is longer than ${MAX_URI} characters`);
  if (!/^[\x21-\x7e]*$/.test(text))
    throw badUri('the URI has spaces or characters beyond ASCII: encode them');
  if (text.includes('#')) throw badUri('the URI has a #: write %23 where it is part of a value');
  const at = text.indexOf('?');
  if (at === -1) return { base: text, parameters: new Map() };
  const parts = text.slice(at + 1).split('&');
  if (parts.length > MAX_PARAMETERS) throw badUri(`the URI has more than ${MAX_PARAMETERS} parameters`);
  const parameters = new Map<string, string>();
  for (const part of parts) {
    const [, name, value] = /^([A-Za-z0-9]+)=(.+)$/.exec(part) ?? [];
    if (name === undefined || value === undefined)
      throw badUri('the URI has a parameter that is not name=value, or without a value');
    if (parameters.has(name)) throw badUri(`the URI gives ${sayable(name)} twice`);
    parameters.set(name, decode(value, name));
  }
  return { base: text.slice(0, at), parameters };
}

function decode(value: string, name: string): string {
  try {
    const decoded = decodeURIComponent(value);
    if (/%(2[dDeE]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])/.test(value)) throw new Error();
    return decoded;
  } catch {
    throw badUri(`the value of ${sayable(name)} is not percent-encoded UTF-8: write % as %25`);
  }
}

/** A name for an error message. What does not look like one may be the rest of a secret that was not encoded. */
export function sayable(name: string): string {
  return /^[a-z][A-Za-z]{0,19}$/.test(name) || name === 'v26Blobs' ? name : 'a parameter of unknown name';
}

/** @returns the URI, with the parameters in the order given; those that are undefined are left out */
export function renderUri(base: string, parameters: Readonly<Record<string, string | undefined>>): string {
  const parts = Object.entries(parameters).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${encode(value)}`],
  );
  return parts.length === 0 ? base : `${base}?${parts.join('&')}`;
}

/** Also what encodeURIComponent leaves and RFC 3986 section 2.2 reserves: a quote would end the URI in some texts. */
function encode(value: string): string {
  return encodeURIComponent(value).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
