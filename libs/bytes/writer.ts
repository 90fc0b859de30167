/** Builds a byte string front to back; grows as needed. Integers out of range throw RangeError. */
export class Writer {
  #buffer = new Uint8Array(256);
  #view = new DataView(this.#buffer.buffer);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  #grow(by: number): number {
    const at = this.#length;
    const wanted = at + by;
    if (wanted > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(wanted, this.#buffer.length * 2));
      larger.set(this.#buffer);
      this.#buffer = larger;
      this.#view = new DataView(larger.buffer);
    }
    this.#length = wanted;
    return at;
  }

  #int(value: number, bits: number): number {
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** bits)
      throw new RangeError(`${value} is no uint${bits}`);
    return value;
  }

  u8(value: number): this {
    this.#int(value, 8);
    const at = this.#grow(1);
    this.#view.setUint8(at, value);
    return this;
  }
  u16be(value: number): this {
    this.#int(value, 16);
    const at = this.#grow(2);
    this.#view.setUint16(at, value);
    return this;
  }
  u16le(value: number): this {
    this.#int(value, 16);
    const at = this.#grow(2);
    this.#view.setUint16(at, value, true);
    return this;
  }
  u24be(value: number): this {
    this.#int(value, 24);
    return this.u8(value >>> 16).u16be(value & 0xffff);
  }
  u32be(value: number): this {
    this.#int(value, 32);
    const at = this.#grow(4);
    this.#view.setUint32(at, value);
    return this;
  }
  u32le(value: number): this {
    this.#int(value, 32);
    const at = this.#grow(4);
    this.#view.setUint32(at, value, true);
    return this;
  }
  u64be(value: bigint): this {
    if (value < 0n || value >= 1n << 64n) throw new RangeError(`${value} is no uint64`);
    const at = this.#grow(8);
    this.#view.setBigUint64(at, value);
    return this;
  }
  bytes(value: Uint8Array): this {
    const at = this.#grow(value.length);
    this.#buffer.set(value, at);
    return this;
  }

  /** A copy of what was written. */
  finish(): Uint8Array {
    return this.#buffer.slice(0, this.#length);
  }
}
