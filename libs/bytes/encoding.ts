import { ParseError } from '@asterism/errors/errors';

const HEX = /^(?:[0-9a-fA-F]{2})*$/;
const HEX_OF = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, '0'));
const NO_DIGIT = 64;
const STANDARD = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const STANDARD_VALUES = valuesOf(STANDARD);
const URL_SAFE_VALUES = valuesOf(STANDARD.replace('+/', '-_'));

/** Value of each ASCII character in an alphabet. */
function valuesOf(alphabet: string): Uint8Array {
  const values = new Uint8Array(128).fill(NO_DIGIT);
  for (let i = 0; i < alphabet.length; i++) values[alphabet.charCodeAt(i)] = i;
  return values;
}

/** Lower-case hexadecimal of `bytes`. */
export function toHex(bytes: Uint8Array): string {
  let out = '';
  for (const byte of bytes) out += HEX_OF[byte];
  return out;
}

/** @throws ParseError unless `text` is an even number of hexadecimal digits (either case). */
export function fromHex(text: string): Uint8Array {
  if (!HEX.test(text)) throw new ParseError('not hexadecimal');
  const out = new Uint8Array(text.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return out;
}

/** Standard base64 with padding (RFC 4648 section 4). */
export function toBase64(bytes: Uint8Array): string {
  let binary = '';
  for (let i = 0; i < bytes.length; i += 0x8000)
    binary += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(binary);
}

/** @throws ParseError unless `text` is canonical standard base64 with padding. */
export function fromBase64(text: string): Uint8Array {
  return decodeBase64(text, STANDARD_VALUES, 'standard base64');
}

function decodeBase64(text: string, values: Uint8Array, what: string): Uint8Array {
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  const digits = text.length - padding;
  if (text.length % 4 !== 0) throw new ParseError(`not ${what} with padding`);
  const out = new Uint8Array((text.length / 4) * 3 - padding);
  let bits = 0;
  let at = 0;
  for (let i = 0; i < digits; i++) {
    const value = values[text.charCodeAt(i)] ?? NO_DIGIT;
    if (value === NO_DIGIT) throw new ParseError(`not ${what}`, { offset: i });
    bits = (bits << 6) | value;
    // Of each four digits the 2nd, 3rd and 4th complete a byte.
    if (i % 4 !== 0) out[at++] = bits >> (6 - 2 * (i % 4));
  }
  // Bits after the last byte must be zero, or several texts would mean the same bytes.
  const unused = 2 * padding;
  if ((bits & ((1 << unused) - 1)) !== 0)
    throw new ParseError(`not canonical ${what}`, { offset: digits - 1 });
  return out;
}

/** URL-safe base64 with padding (RFC 4648 section 5). */
export function toBase64Url(bytes: Uint8Array): string {
  return toBase64(bytes).replaceAll('+', '-').replaceAll('/', '_');
}

/** @throws ParseError unless `text` is canonical URL-safe base64 with padding. */
export function fromBase64Url(text: string): Uint8Array {
  return decodeBase64(text, URL_SAFE_VALUES, 'URL-safe base64');
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/** UTF-8 bytes of `text`. */
export function toUtf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/** @throws ParseError unless `bytes` is well-formed UTF-8. */
export function fromUtf8(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch (cause) {
    throw new ParseError('not UTF-8', { cause });
  }
}
