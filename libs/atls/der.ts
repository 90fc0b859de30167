import { concat } from '@asterism/bytes/bytes';
import { Reader } from '@asterism/bytes/reader';

/** The DER tags (X.690) that occur in an aTLS certificate. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** Context-specific constructed tag `[number]`. */
export function contextTag(number: number): number {
  return 0xa0 | number;
}

/** One DER element: tag, shortest length, contents. */
export function element(tag: number, ...contents: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of contents) length += part.length;
  return concat(header(tag, length), ...contents);
}

/** Tag and length of an element whose contents are `length` bytes (less than 16 MiB). */
export function header(tag: number, length: number): Uint8Array {
  if (length < 0x80) return Uint8Array.of(tag, length);
  if (length < 0x100) return Uint8Array.of(tag, 0x81, length);
  if (length < 0x10000) return Uint8Array.of(tag, 0x82, length >> 8, length & 0xff);
  return Uint8Array.of(tag, 0x83, length >> 16, (length >> 8) & 0xff, length & 0xff);
}

/** OBJECT IDENTIFIER element of a dotted OID. Throws RangeError when `dotted` is none. */
export function oid(dotted: string): Uint8Array {
  const arcs = dotted.split('.').map(Number);
  const [first, second, ...rest] = arcs;
  if (
    first === undefined ||
    second === undefined ||
    arcs.some((arc) => !Number.isSafeInteger(arc) || arc < 0)
  )
    throw new RangeError(`not an OID: ${dotted}`);
  if (first > 2 || (first < 2 && second > 39)) throw new RangeError(`not an OID: ${dotted}`);
  const bytes: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const septets = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      septets.unshift(128 + (left % 128));
    bytes.push(...septets);
  }
  return element(TAG.oid, Uint8Array.from(bytes));
}

/** The element at the reader's place: its tag, a reader over its contents, and its whole encoding. */
export interface Element {
  readonly tag: number;
  readonly contents: Reader;
  readonly encoded: Uint8Array;
}

/**
 * Reads elements from front to back. DER only: definite lengths in their shortest form, single-byte tags.
 */
export class DerReader {
  readonly #bytes: Uint8Array;
  readonly #reader: Reader;
  readonly #base: number;

  /** @param base offset of `bytes` in a larger input, for the offsets in errors */
  constructor(bytes: Uint8Array, base = 0) {
    this.#bytes = bytes;
    this.#reader = new Reader(bytes, base);
    this.#base = base;
  }

  get empty(): boolean {
    return this.#reader.remaining === 0;
  }

  /** Tag of the next element; undefined at the end. */
  get next(): number | undefined {
    return this.#bytes[this.#reader.offset - this.#base];
  }

  /** @throws ParseError unless an element with `tag` comes next, whole and in DER. */
  element(tag: number, what: string): Element {
    const reader = this.#reader;
    const start = reader.offset - this.#base;
    const found = reader.u8(what);
    if (found !== tag) reader.fail(`${what} has tag 0x${found.toString(16)}, not 0x${tag.toString(16)}`);
    const first = reader.u8(`length of ${what}`);
    let length = first;
    if (first >= 0x80) {
      const bytes = first & 0x7f;
      if (bytes === 0 || bytes > 3) reader.fail(`length of ${what} is not DER`);
      length = 0;
      for (let i = 0; i < bytes; i++) length = length * 256 + reader.u8(`length of ${what}`);
      if (length < 0x80 || length < 2 ** (8 * (bytes - 1)))
        reader.fail(`length of ${what} is not the shortest`);
    }
    const contents = reader.sub(length, what);
    return { tag: found, contents, encoded: this.#bytes.subarray(start, reader.offset - this.#base) };
  }

  /** A reader over the contents of the next element, which must have `tag`. */
  enter(tag: number, what: string): DerReader {
    const { contents } = this.element(tag, what);
    const base = contents.offset;
    return new DerReader(contents.rest(), base);
  }

  /** The contents of the next element, which must have `tag`. */
  contents(tag: number, what: string): Uint8Array {
    return this.element(tag, what).contents.rest();
  }

  /** @throws ParseError when bytes are left over. */
  end(what: string): void {
    this.#reader.end(what);
  }

  fail(message: string): never {
    return this.#reader.fail(message);
  }
}

/** Dotted form of the contents of an OBJECT IDENTIFIER. @throws ParseError unless they are DER. */
export function dotted(contents: Uint8Array): string {
  const reader = new Reader(contents);
  const arcs: number[] = [];
  do {
    let arc = 0;
    let byte: number;
    let first = true;
    do {
      byte = reader.u8('OID');
      if (first && byte === 0x80) reader.fail('OID arc is not the shortest');
      first = false;
      arc = arc * 128 + (byte & 0x7f);
      if (arc > Number.MAX_SAFE_INTEGER / 128) reader.fail('OID arc is too large');
    } while (byte >= 0x80);
    arcs.push(arc);
  } while (reader.remaining > 0);
  const joined = arcs[0]!;
  const top = Math.min(Math.floor(joined / 40), 2);
  return [top, joined - top * 40, ...arcs.slice(1)].join('.');
}

/** PEM of a DER structure, in lines of 64 characters and no blank line (OpenSSL refuses one). */
export function pem(label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64');
  let lines = '';
  for (let at = 0; at < base64.length; at += 64) lines += `${base64.slice(at, at + 64)}\n`;
  return `-----BEGIN ${label}-----\n${lines}-----END ${label}-----\n`;
}
