import { ParseError } from '@asterism/errors/errors';
import { Chunks } from './chunks.ts';

/** TLS record types (RFC 8446 5.1). */
export const RECORD = { changeCipherSpec: 20, alert: 21, handshake: 22, applicationData: 23 } as const;

/** Handshake message types (RFC 8446 4). */
export const MESSAGE = {
  clientHello: 1,
  serverHello: 2,
  encryptedExtensions: 8,
  certificate: 11,
  certificateRequest: 13,
  certificateVerify: 15,
  finished: 20,
  messageHash: 254,
} as const;

/** RFC 8446 5.2: a protected record is at most this much longer than 2^14 bytes. */
const MAX_FRAGMENT = (1 << 14) + 256;
const RECORD_HEADER = 5;
const MESSAGE_HEADER = 4;
/** Largest handshake message: OpenSSL's own limit for certificates is 100 KiB. */
const MAX_MESSAGE = 128 * 1024;

export interface TlsRecord {
  readonly type: number;
  readonly fragment: Uint8Array;
  /** Header and fragment. */
  readonly encoded: Uint8Array;
}

/** Cuts a byte stream into TLS records. */
export class RecordReader {
  readonly #chunks = new Chunks();

  add(bytes: Uint8Array): void {
    this.#chunks.add(bytes);
  }

  /** The next whole record. @throws ParseError when what comes is no TLS record */
  next(): TlsRecord | undefined {
    const chunks = this.#chunks;
    if (chunks.length < RECORD_HEADER) return undefined;
    const header = chunks.peek(RECORD_HEADER);
    const type = header[0]!;
    const length = (header[3]! << 8) | header[4]!;
    if (type < RECORD.changeCipherSpec || type > RECORD.applicationData || header[1] !== 3)
      throw new ParseError('not a TLS record');
    if (length === 0 || length > MAX_FRAGMENT) throw new ParseError(`TLS record of ${length} bytes`);
    if (chunks.length < RECORD_HEADER + length) return undefined;
    const encoded = chunks.take(RECORD_HEADER + length);
    return { type, fragment: encoded.subarray(RECORD_HEADER), encoded };
  }

  /** Whatever has not made a whole record yet. */
  rest(): Uint8Array {
    return this.#chunks.takeAll();
  }
}

export interface HandshakeMessage {
  readonly type: number;
  readonly body: Uint8Array;
  /** Header and body: what goes into the transcript. */
  readonly encoded: Uint8Array;
}

/** Puts handshake messages together from the fragments of records. */
export class MessageReader {
  readonly #chunks = new Chunks();

  add(fragment: Uint8Array): void {
    this.#chunks.add(fragment);
  }

  /** Whether a message has begun and not ended. */
  get partial(): boolean {
    return this.#chunks.length > 0;
  }

  /** The next whole message. @throws ParseError when it claims more than 128 KiB */
  next(): HandshakeMessage | undefined {
    const chunks = this.#chunks;
    if (chunks.length < MESSAGE_HEADER) return undefined;
    const header = chunks.peek(MESSAGE_HEADER);
    const type = header[0]!;
    const length = (header[1]! << 16) | (header[2]! << 8) | header[3]!;
    if (length > MAX_MESSAGE) throw new ParseError(`handshake message of ${length} bytes`);
    if (chunks.length < MESSAGE_HEADER + length) return undefined;
    const encoded = chunks.take(MESSAGE_HEADER + length);
    return { type, body: encoded.subarray(MESSAGE_HEADER), encoded };
  }
}
