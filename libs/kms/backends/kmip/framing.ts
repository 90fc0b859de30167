import { ParseError } from '@asterism/errors/errors';
import { TAG } from './tags.ts';
import { HEADER_BYTES, MAX_MESSAGE_BYTES } from './ttlv.ts';

const STRUCTURE = 0x01;

/** One answer as it arrives: its header says how long it is, and is judged before anything more is kept. */
export class Incoming {
  #bytes = new Uint8Array(HEADER_BYTES);
  #filled = 0;
  #whole = false;

  /**
   * Takes what arrived next. The chunk is overwritten with zeros: it may hold a key.
   * @returns the answer once it is complete
   * @throws ParseError it is no response message, too large, or more than one
   */
  push(chunk: Uint8Array): Uint8Array | undefined {
    let at = 0;
    for (;;) {
      const part = chunk.subarray(at, at + this.#bytes.length - this.#filled);
      this.#bytes.set(part, this.#filled);
      at += part.length;
      this.#filled += part.length;
      if (this.#whole || this.#filled < HEADER_BYTES) break;
      this.#makeRoom();
    }
    const left = chunk.length - at;
    chunk.fill(0);
    if (left > 0) throw new ParseError(`${left} bytes after an answer`, { offset: this.#filled });
    return this.#whole && this.#filled === this.#bytes.length ? this.#bytes : undefined;
  }

  #makeRoom(): void {
    const view = new DataView(this.#bytes.buffer);
    if (view.getUint32(0) !== TAG.responseMessage * 0x100 + STRUCTURE)
      throw new ParseError('no response message of KMIP', { offset: 0 });
    const length = HEADER_BYTES + view.getUint32(4);
    if (length > MAX_MESSAGE_BYTES) throw new ParseError(`an answer of ${length} bytes`, { offset: 4 });
    const whole = new Uint8Array(length);
    whole.set(this.#bytes);
    this.#bytes = whole;
    this.#whole = true;
  }

  /** Overwrites what has arrived. */
  wipe(): void {
    this.#bytes.fill(0);
  }
}
