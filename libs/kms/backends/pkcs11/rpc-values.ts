import { Reader } from '@asterism/bytes/reader';
import { Writer } from '@asterism/bytes/writer';
import { ATTRIBUTES, type AttributeName, type Attributes } from './cryptoki.ts';

/** Length of an array that is not there, and of a mechanism's parameter where it has none. */
const NO_ARRAY = 0xffffffff;
const MAX_ATTRIBUTES = 32;
const MAX_BYTES = 16 * 1024;
const MAX_ULONGS = 1024;

// Letters of a signature, as p11-kit has them: y a byte, u a CK_ULONG, s a string padded with spaces, v a version,
// M a mechanism, A an attribute, aX an array of X, fX room for an array of X. All numbers are big-endian.

/** The values of a message, in the order of its signature. */
export class ValueWriter {
  readonly #out = new Writer();
  #signature = '';

  #next(letters: string): Writer {
    this.#signature += letters;
    return this.#out;
  }

  byte(value: number): this {
    this.#next('y').u8(value);
    return this;
  }

  ulong(value: bigint): this {
    this.#next('u').u64be(value);
    return this;
  }

  bytes(value: Uint8Array): this {
    this.#next('ay').u8(1).u32be(value.length).bytes(value);
    return this;
  }

  ulongs(values: readonly bigint[]): this {
    const out = this.#next('au').u8(1).u32be(values.length);
    for (const value of values) out.u64be(value);
    return this;
  }

  /** Room for bytes that the answer brings. */
  byteRoom(count: number): this {
    this.#next('fy').u32be(count);
    return this;
  }

  ulongRoom(count: number): this {
    this.#next('fu').u32be(count);
    return this;
  }

  /** Names of attributes that the answer brings, with room for each. */
  attributeRoom(rooms: Readonly<Partial<Record<AttributeName, number>>>): this {
    const entries = Object.entries(rooms) as [AttributeName, number][];
    const out = this.#next('fA').u32be(entries.length);
    for (const [name, room] of entries) out.u32be(ATTRIBUTES[name].type).u32be(room);
    return this;
  }

  attributes(values: Attributes): this {
    const entries = Object.entries(values) as [AttributeName, bigint | boolean | Uint8Array][];
    const out = this.#next('aA').u32be(entries.length);
    for (const [name, value] of entries) {
      out.u32be(ATTRIBUTES[name].type).u8(1);
      if (typeof value === 'boolean') out.u32be(1).u8(value ? 1 : 0);
      else if (typeof value === 'bigint') out.u32be(8).u64be(value);
      else out.u32be(value.length).u32be(value.length).bytes(value);
    }
    return this;
  }

  /** A mechanism without a parameter. */
  mechanism(type: number): this {
    this.#next('M').u32be(type).u32be(NO_ARRAY);
    return this;
  }

  /** @throws RangeError the values are not those of the signature */
  finish(signature: string): Uint8Array {
    if (this.#signature !== signature) throw new RangeError(`${this.#signature} is not ${signature}`);
    return this.#out.finish();
  }
}

/** Reads the values of a message from a stranger: each is bounded. Byte strings are views. */
export class ValueReader {
  readonly #in: Reader;

  constructor(bytes: Uint8Array) {
    this.#in = new Reader(bytes);
  }

  byte(): number {
    return this.#in.u8('byte');
  }

  ulong(): bigint {
    return this.#in.u64be('CK_ULONG');
  }

  bytes(): Uint8Array {
    this.#present();
    return this.#in.bytes(this.#count(MAX_BYTES), 'byte array');
  }

  ulongs(): readonly bigint[] {
    this.#present();
    return Array.from({ length: this.#count(MAX_ULONGS) }, () => this.ulong());
  }

  /** @param length bytes that the string has in PKCS#11 */
  spaceString(length: number): string {
    if (this.#in.u32be('length') !== length) this.#in.fail(`a string that has not ${length} bytes`);
    return Buffer.from(this.#in.bytes(length)).toString('utf8').trimEnd();
  }

  version(): void {
    this.#in.bytes(2, 'version');
  }

  attributes(): Attributes {
    const found: Partial<Record<AttributeName, bigint | boolean | Uint8Array>> = {};
    for (let left = this.#count(MAX_ATTRIBUTES); left > 0; left--) {
      const type = this.#in.u32be('attribute');
      const [name, { form }] =
        attributeOf(type) ?? this.#in.fail(`attribute 0x${type.toString(16)} is not known`);
      if (name in found) this.#in.fail(`${name} comes twice`);
      // It has no such attribute, or does not tell.
      if (this.#in.u8('validity') === 0) continue;
      const length = this.#in.u32be('length of the value');
      const value = this.#value(form, length);
      if (value !== undefined) found[name] = value;
    }
    return found as Attributes;
  }

  /** @throws ParseError bytes are left over */
  end(): void {
    this.#in.end('message');
  }

  #value(form: 'ulong' | 'bool' | 'bytes', length: number): bigint | boolean | Uint8Array | undefined {
    if (form === 'bytes') {
      const size = this.#in.u32be('length');
      if (size === NO_ARRAY) return undefined;
      if (size !== length || size > MAX_BYTES) this.#in.fail(`an attribute of ${size} bytes`);
      return this.#in.bytes(size, 'attribute');
    }
    if (form === 'ulong') {
      // Whatever size a CK_ULONG has over there, eight bytes come.
      if (length !== 8 && length !== 4) this.#in.fail(`a CK_ULONG of ${length} bytes`);
      return this.ulong();
    }
    const byte = this.byte();
    if (length !== 1 || byte > 1) this.#in.fail('a CK_BBOOL that is none');
    return byte === 1;
  }

  #present(): void {
    if (this.byte() !== 1) this.#in.fail('an array that is not there, or did not fit');
  }

  #count(max: number): number {
    const count = this.#in.u32be('length');
    if (count > max) this.#in.fail(`an array of ${count} where ${max} is the most`);
    return count;
  }
}

function attributeOf(type: number): [AttributeName, (typeof ATTRIBUTES)[AttributeName]] | undefined {
  for (const [name, attribute] of Object.entries(ATTRIBUTES))
    if (attribute.type === type) return [name as AttributeName, attribute];
  return undefined;
}
