import { ParseError } from '@asterism/errors/errors';

/**
 * Reads foreign bytes from front to back. Every read is bounded by what is there: too little throws ParseError
 * with the offset. Byte strings are views of the input, not copies.
 */
export class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #base: number;
  #offset = 0;

  /** @param base offset of `bytes` in a larger input, for the offsets in errors */
  constructor(bytes: Uint8Array, base = 0) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#base = base;
  }

  /** Offset of the next byte to be read, counted from the start of the outermost input. */
  get offset(): number {
    return this.#base + this.#offset;
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset;
  }

  /** Throws ParseError at the present offset. */
  fail(message: string): never {
    throw new ParseError(`${message} (at byte ${this.offset})`, { offset: this.offset });
  }

  #take(length: number, what: string): number {
    if (length > this.remaining) this.fail(`${what} needs ${length} bytes, ${this.remaining} are left`);
    const at = this.#offset;
    this.#offset += length;
    return at;
  }

  u8(what = 'uint8'): number {
    return this.#view.getUint8(this.#take(1, what));
  }
  u16be(what = 'uint16'): number {
    return this.#view.getUint16(this.#take(2, what));
  }
  u16le(what = 'uint16'): number {
    return this.#view.getUint16(this.#take(2, what), true);
  }
  u24be(what = 'uint24'): number {
    const at = this.#take(3, what);
    return (this.#view.getUint8(at) << 16) | this.#view.getUint16(at + 1);
  }
  u32be(what = 'uint32'): number {
    return this.#view.getUint32(this.#take(4, what));
  }
  u32le(what = 'uint32'): number {
    return this.#view.getUint32(this.#take(4, what), true);
  }
  u64be(what = 'uint64'): bigint {
    return this.#view.getBigUint64(this.#take(8, what));
  }
  u64le(what = 'uint64'): bigint {
    return this.#view.getBigUint64(this.#take(8, what), true);
  }

  /** The next `length` bytes, as a view. */
  bytes(length: number, what = 'byte string'): Uint8Array {
    const at = this.#take(length, what);
    return this.#bytes.subarray(at, at + length);
  }

  /** A reader over the next `length` bytes, which this one skips. */
  sub(length: number, what = 'structure'): Reader {
    const base = this.offset;
    return new Reader(this.bytes(length, what), base);
  }

  rest(): Uint8Array {
    return this.bytes(this.remaining);
  }

  /** Throws ParseError when bytes are left over. */
  end(what = 'structure'): void {
    if (this.remaining !== 0) this.fail(`${this.remaining} bytes too many after ${what}`);
  }
}
