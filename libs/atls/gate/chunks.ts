/** Bytes that come in pieces of any size. Takes time in proportion to the bytes, also when they come one by one. */
export class Chunks {
  #parts: Uint8Array[] = [];
  /** Index of the first part that is still there: taking parts out of the array one by one would be quadratic. */
  #first = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  add(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#parts.push(bytes);
    this.#length += bytes.length;
  }

  /** The first `length` bytes (as a view where possible), left in place. Only when that many are there. */
  peek(length: number): Uint8Array {
    const first = this.#parts[this.#first];
    if (first !== undefined && first.length >= length) return first.subarray(0, length);
    const out = new Uint8Array(length);
    for (let at = 0, index = this.#first; at < length; index++) {
      const piece = this.#parts[index]!.subarray(0, length - at);
      out.set(piece, at);
      at += piece.length;
    }
    return out;
  }

  /** Removes and returns the first `length` bytes. Only when that many are there. */
  take(length: number): Uint8Array {
    const out = this.peek(length);
    let left = length;
    while (left > 0) {
      const first = this.#parts[this.#first]!;
      if (first.length <= left) {
        this.#first++;
        left -= first.length;
      } else {
        this.#parts[this.#first] = first.subarray(left);
        left = 0;
      }
    }
    this.#length -= length;
    if (this.#first * 2 >= this.#parts.length) {
      this.#parts = this.#parts.slice(this.#first);
      this.#first = 0;
    }
    return out;
  }

  takeAll(): Uint8Array {
    return this.take(this.#length);
  }
}
