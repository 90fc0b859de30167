import { ParseError } from '@asterism/errors/errors';

const HEX = /^(?:[0-9a-fA-F]{2})*$/;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const BASE64URL = /^(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?$/;
const HEX_OF = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, '0'));

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
  if (!BASE64.test(text)) throw new ParseError('not standard base64');
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  if (toBase64(bytes) !== text) throw new ParseError('not canonical base64');
  return bytes;
}

/** URL-safe base64 with padding (RFC 4648 section 5). */
export function toBase64Url(bytes: Uint8Array): string {
  return toBase64(bytes).replaceAll('+', '-').replaceAll('/', '_');
}

/** @throws ParseError unless `text` is canonical URL-safe base64 with padding. */
export function fromBase64Url(text: string): Uint8Array {
  if (!BASE64URL.test(text)) throw new ParseError('not URL-safe base64');
  return fromBase64(text.replaceAll('-', '+').replaceAll('_', '/'));
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
