import { UnreachableError } from '@asterism/errors/errors';

const HEADER = 10;
/** TPM2_MAX_RESPONSE_SIZE of real TPMs is 4096. */
export const MAX_RESPONSE = 8192;

/** Puts one response together from the pieces that a socket or device gives. */
export class ResponseBuffer {
  #bytes = new Uint8Array();

  /**
   * @returns the response once it is whole
   * @throws UnreachableError the size in its header is absurd, or there is more than one response
   */
  add(piece: Uint8Array): Uint8Array | undefined {
    const all = new Uint8Array(this.#bytes.length + piece.length);
    all.set(this.#bytes);
    all.set(piece, this.#bytes.length);
    this.#bytes = all;
    if (all.length < HEADER) return undefined;
    const size = new DataView(all.buffer).getUint32(2);
    if (size < HEADER || size > MAX_RESPONSE || all.length > size) {
      throw new UnreachableError(`the TPM announced ${size} bytes and sent ${all.length}: that is no TPM`, {
        code: 'ERR_TPM_UNREACHABLE',
      });
    }
    return all.length === size ? all : undefined;
  }
}
