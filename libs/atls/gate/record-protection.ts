import {
  type CipherGCMTypes,
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  hash,
  type KeyObject,
} from 'node:crypto';
import { concat, zero } from '@asterism/bytes/bytes';
import { toUtf8 } from '@asterism/bytes/encoding';
import { Writer } from '@asterism/bytes/writer';
import { ParseError } from '@asterism/errors/errors';
import { RECORD } from './records.ts';

export interface Suite {
  readonly hash: 'sha256' | 'sha384';
  /** Bytes. */
  readonly hashLength: number;
  readonly blockLength: number;
  readonly cipher: CipherGCMTypes | 'chacha20-poly1305';
  readonly keyLength: number;
}

/** The suites of TLS 1.3 that OpenSSL offers by default (RFC 8446 B.4). */
const SUITES: ReadonlyMap<number, Suite> = new Map([
  [0x1301, { hash: 'sha256', hashLength: 32, blockLength: 64, cipher: 'aes-128-gcm', keyLength: 16 }],
  [0x1302, { hash: 'sha384', hashLength: 48, blockLength: 128, cipher: 'aes-256-gcm', keyLength: 32 }],
  [0x1303, { hash: 'sha256', hashLength: 32, blockLength: 64, cipher: 'chacha20-poly1305', keyLength: 32 }],
]);

/** @throws ParseError for any other */
export function suiteOf(number: number): Suite {
  const suite = SUITES.get(number);
  if (suite === undefined) throw new ParseError(`cipher suite 0x${number.toString(16)} was not offered`);
  return suite;
}

/** RFC 2104, of keys not longer than a block. From two hashes: ten times cheaper than a createHmac of each key. */
function hmac(suite: Suite, key: Uint8Array, message: Uint8Array): Uint8Array {
  const inner = new Uint8Array(suite.blockLength + message.length);
  const outer = new Uint8Array(suite.blockLength + suite.hashLength);
  inner.fill(0x36, 0, suite.blockLength);
  outer.fill(0x5c, 0, suite.blockLength);
  for (let i = 0; i < key.length; i++) {
    inner[i]! ^= key[i]!;
    outer[i]! ^= key[i]!;
  }
  inner.set(message, suite.blockLength);
  outer.set(hash(suite.hash, inner, 'buffer'), suite.blockLength);
  const out = new Uint8Array(hash(suite.hash, outer, 'buffer'));
  zero(inner, outer);
  return out;
}

/** RFC 8446 7.1: HkdfLabel with an empty context, and the counter of HKDF-Expand's first block. */
function labelInfo(label: string, length: number): Uint8Array {
  const name = toUtf8(`tls13 ${label}`);
  return new Writer().u16be(length).u8(name.length).bytes(name).u8(0).u8(1).finish();
}

const KEY_INFO = new Map([16, 32].map((length) => [length, labelInfo('key', length)]));
const FINISHED_INFO = new Map([32, 48].map((length) => [length, labelInfo('finished', length)]));
const IV_LENGTH = 12;
const IV_INFO = labelInfo('iv', IV_LENGTH);

/** HKDF-Expand-Label (RFC 8446 7.1). Lengths here never exceed one block of the hash. */
function expand(suite: Suite, secret: Uint8Array, info: Uint8Array, length: number): Uint8Array {
  const block = hmac(suite, secret, info);
  const out = block.slice(0, length);
  zero(block);
  return out;
}

/** RFC 8446 4.4.4: verify_data of the Finished message that ends the given transcript. */
export function finishedData(
  suite: Suite,
  trafficSecret: Uint8Array,
  transcriptHash: Uint8Array,
): Uint8Array {
  const key = expand(suite, trafficSecret, FINISHED_INFO.get(suite.hashLength)!, suite.hashLength);
  const data = hmac(suite, key, transcriptHash);
  zero(key);
  return data;
}

const TAG_LENGTH = 16;
const MAX_PLAINTEXT = 1 << 14;

/** Seals or opens the records of one direction under one traffic secret (RFC 8446 5.2, 5.3). */
export class RecordProtection {
  readonly #suite: Suite;
  // A KeyObject: with bytes, each cipher costs three times as much. OpenSSL wipes it when it is collected.
  #key: KeyObject | undefined;
  readonly #iv: Uint8Array;
  #sequence = 0;

  constructor(suite: Suite, trafficSecret: Uint8Array) {
    this.#suite = suite;
    const key = expand(suite, trafficSecret, KEY_INFO.get(suite.keyLength)!, suite.keyLength);
    this.#key = createSecretKey(key);
    zero(key);
    this.#iv = expand(suite, trafficSecret, IV_INFO, IV_LENGTH);
  }

  #nonce(): Uint8Array {
    const nonce = this.#iv.slice();
    const view = new DataView(nonce.buffer);
    view.setUint32(8, (view.getUint32(8) ^ this.#sequence++) >>> 0);
    return nonce;
  }

  #present(): KeyObject {
    if (this.#key === undefined) throw new ParseError('a record after its keys were forgotten');
    return this.#key;
  }

  // The three ciphers share one interface of node:crypto; its types want to know which.
  get #cipher(): CipherGCMTypes {
    return this.#suite.cipher as CipherGCMTypes;
  }

  /** @throws ParseError when the record is not authentic, or has no content */
  open(fragment: Uint8Array, header: Uint8Array): { readonly type: number; readonly content: Uint8Array } {
    if (fragment.length < TAG_LENGTH + 1) throw new ParseError('protected record is too short');
    const cut = fragment.length - TAG_LENGTH;
    const decipher = createDecipheriv(this.#cipher, this.#present(), this.#nonce(), {
      authTagLength: TAG_LENGTH,
    });
    decipher.setAAD(header);
    decipher.setAuthTag(fragment.subarray(cut));
    const inner = decipher.update(fragment.subarray(0, cut));
    try {
      decipher.final();
    } catch (cause) {
      throw new ParseError('protected record is not authentic', { cause });
    }
    let end = inner.length;
    while (end > 0 && inner[end - 1] === 0) end--;
    if (end === 0) throw new ParseError('protected record has no content type');
    return { type: inner[end - 1]!, content: inner.subarray(0, end - 1) };
  }

  /** Handshake bytes as protected records. */
  sealHandshake(bytes: Uint8Array): Uint8Array {
    const records: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += MAX_PLAINTEXT) {
      const piece = bytes.subarray(at, at + MAX_PLAINTEXT);
      const length = piece.length + 1 + TAG_LENGTH;
      const header = Uint8Array.of(RECORD.applicationData, 3, 3, length >> 8, length & 0xff);
      const cipher = createCipheriv(this.#cipher, this.#present(), this.#nonce(), {
        authTagLength: TAG_LENGTH,
      });
      cipher.setAAD(header);
      const sealed = cipher.update(concat(piece, Uint8Array.of(RECORD.handshake)));
      cipher.final();
      records.push(header, sealed, cipher.getAuthTag());
    }
    return concat(...records);
  }

  /** Begins to count records again. */
  restart(): void {
    this.#sequence = 0;
  }

  clear(): void {
    this.#key = undefined;
    zero(this.#iv);
  }
}
