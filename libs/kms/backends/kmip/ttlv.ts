import { fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import { Reader } from '@asterism/bytes/reader';

/** Largest message that is written or read, in bytes. Ours have a few hundred. */
export const MAX_MESSAGE_BYTES = 64 * 1024;
/** Structures within structures. Messages of KMIP 2.0 need 7. */
const MAX_DEPTH = 16;
/** Items of one message, structures among them. */
const MAX_ITEMS = 2000;

/** Tag, type and length (KMIP 1.4 section 9.1.1). */
export const HEADER_BYTES = 8;

/** Item types (KMIP 1.4 section 9.1.1.2; Date-Time Extended came with KMIP 2.0). */
const TYPES = {
  structure: 0x01,
  integer: 0x02,
  longInteger: 0x03,
  bigInteger: 0x04,
  enumeration: 0x05,
  boolean: 0x06,
  textString: 0x07,
  byteString: 0x08,
  dateTime: 0x09,
  interval: 0x0a,
  dateTimeExtended: 0x0b,
} as const;

export type ItemType = keyof typeof TYPES;
const NAMES = new Map<number, ItemType>(
  Object.entries(TYPES).map(([name, number]) => [number, name as ItemType]),
);

export interface Structure {
  readonly tag: number;
  readonly type: 'structure';
  readonly value: readonly Item[];
}

/** One item of a message: a value with its tag (24 bits). */
export type Item =
  | Structure
  /** Signed, 32 bits. */
  | { readonly tag: number; readonly type: 'integer'; readonly value: number }
  /** Signed, 64 bits. */
  | { readonly tag: number; readonly type: 'longInteger'; readonly value: bigint }
  | { readonly tag: number; readonly type: 'bigInteger'; readonly value: bigint }
  /** Unsigned, 32 bits; an interval counts seconds. */
  | { readonly tag: number; readonly type: 'enumeration' | 'interval'; readonly value: number }
  | { readonly tag: number; readonly type: 'boolean'; readonly value: boolean }
  | { readonly tag: number; readonly type: 'textString'; readonly value: string }
  | { readonly tag: number; readonly type: 'byteString'; readonly value: Uint8Array }
  /** Signed, 64 bits: seconds since 1970; extended: microseconds. */
  | { readonly tag: number; readonly type: 'dateTime' | 'dateTimeExtended'; readonly value: bigint };

/** What an item of a type holds. */
export type ValueOf<T extends ItemType> = Extract<Item, { type: T }>['value'];

/**
 * TTLV (tag, type, length, value) of an item: KMIP 1.4 section 9.1. Written into one buffer of the right size, so that
 * no copy of a key is left behind.
 *
 * @throws RangeError a number out of its type's range, or more than {@link MAX_MESSAGE_BYTES}
 */
export function encodeTtlv(item: Item): Uint8Array {
  const size = sizeOf(item);
  if (size > MAX_MESSAGE_BYTES) throw new RangeError(`a message of ${size} bytes is too large`);
  const out = new Uint8Array(size);
  write(item, out, 0);
  return out;
}

const padded = (length: number) => Math.ceil(length / 8) * 8;
const sizeOf = (item: Item): number => HEADER_BYTES + padded(lengthOf(item));

/** Length as the header has it: without padding. */
function lengthOf(item: Item): number {
  switch (item.type) {
    case 'structure':
      return item.value.reduce((sum, child) => sum + sizeOf(child), 0);
    case 'integer':
    case 'enumeration':
    case 'interval':
      return 4;
    case 'textString':
      return toUtf8(item.value).length;
    case 'byteString':
      return item.value.length;
    case 'bigInteger':
      return 8 * bigIntegerWords(item.value);
    default:
      return 8;
  }
}

/** 64-bit words of the shortest two's complement. */
function bigIntegerWords(value: bigint): number {
  let words = 1;
  while (BigInt.asIntN(64 * words, value) !== value) words++;
  return words;
}

/** @returns offset after the item */
function write(item: Item, out: Uint8Array, at: number): number {
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  const length = lengthOf(item);
  view.setUint32(at, inRange(item.tag, 0, 0xffffff) * 0x100 + TYPES[item.type]);
  view.setUint32(at + 4, length);
  const start = at + HEADER_BYTES;
  switch (item.type) {
    case 'structure': {
      let next = start;
      for (const child of item.value) next = write(child, out, next);
      return next;
    }
    case 'integer':
      view.setInt32(start, inRange(item.value, -(2 ** 31), 2 ** 31 - 1));
      break;
    case 'enumeration':
    case 'interval':
      view.setUint32(start, inRange(item.value, 0, 2 ** 32 - 1));
      break;
    case 'boolean':
      view.setBigUint64(start, item.value ? 1n : 0n);
      break;
    case 'textString':
      out.set(toUtf8(item.value), start);
      break;
    case 'byteString':
      out.set(item.value, start);
      break;
    case 'bigInteger':
      for (let word = 0; word < length / 8; word++)
        view.setBigInt64(start + length - 8 * (word + 1), BigInt.asIntN(64, item.value >> BigInt(64 * word)));
      break;
    default:
      if (BigInt.asIntN(64, item.value) !== item.value)
        throw new RangeError('a number needs more than 64 bits');
      view.setBigInt64(start, item.value);
  }
  return start + padded(length);
}

function inRange(value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new RangeError(`${value} is not between ${least} and ${most}`);
  return value;
}

/**
 * Reads one item that fills the input. Every item has one encoding only: lengths are exact, padding is zero.
 * Byte strings are views of the input.
 *
 * @throws ParseError with the offset
 */
export function decodeTtlv(bytes: Uint8Array): Item {
  const reader = new Reader(bytes);
  if (bytes.length > MAX_MESSAGE_BYTES)
    reader.fail(`a message has ${MAX_MESSAGE_BYTES} bytes at most, not ${bytes.length}`);
  const item = read(reader, 1, { items: MAX_ITEMS });
  reader.end('message');
  return item;
}

function read(reader: Reader, depth: number, left: { items: number }): Item {
  if (left.items-- === 0) reader.fail(`more than ${MAX_ITEMS} items`);
  const tag = reader.u24be('tag');
  // KMIP 1.4 section 9.1.1.1: 42 is for the specification, 54 for extensions.
  if (tag >> 16 !== 0x42 && tag >> 16 !== 0x54) reader.fail('a tag out of range');
  const type = NAMES.get(reader.u8('type'));
  const length = reader.u32be('length');
  switch (type) {
    case undefined:
      return reader.fail('an unknown item type');
    case 'structure': {
      if (depth > MAX_DEPTH) reader.fail(`structures nest more than ${MAX_DEPTH} deep`);
      const inner = reader.sub(length);
      const value: Item[] = [];
      while (inner.remaining > 0) value.push(read(inner, depth + 1, left));
      return { tag, type, value };
    }
    case 'textString':
      return { tag, type, value: fromUtf8(variable(reader, length)) };
    case 'byteString':
      return { tag, type, value: variable(reader, length) };
    case 'bigInteger':
      return { tag, type, value: bigInteger(reader, length) };
    case 'integer': {
      fixed(reader, length, 4);
      const value = reader.u32be() | 0;
      padding(reader, 4);
      return { tag, type, value };
    }
    case 'enumeration':
    case 'interval': {
      fixed(reader, length, 4);
      const value = reader.u32be();
      padding(reader, 4);
      return { tag, type, value };
    }
    case 'boolean': {
      fixed(reader, length, 8);
      const value = reader.u64be();
      if (value > 1n) reader.fail('a boolean that is neither true nor false');
      return { tag, type, value: value === 1n };
    }
    default:
      fixed(reader, length, 8);
      return { tag, type, value: BigInt.asIntN(64, reader.u64be()) };
  }
}

function fixed(reader: Reader, length: number, expected: number): void {
  if (length !== expected) reader.fail(`a length of ${length} where the type has ${expected}`);
}

function variable(reader: Reader, length: number): Uint8Array {
  const value = reader.bytes(length);
  padding(reader, padded(length) - length);
  return value;
}

function padding(reader: Reader, length: number): void {
  if (reader.bytes(length, 'padding').some((byte) => byte !== 0)) reader.fail('padding that is not zero');
}

function bigInteger(reader: Reader, length: number): bigint {
  if (length === 0 || length % 8 !== 0) reader.fail(`a big integer of ${length} bytes`);
  let value = 0n;
  for (let word = 0; word < length / 8; word++) value = (value << 64n) | reader.u64be();
  value = BigInt.asIntN(8 * length, value);
  if (8 * bigIntegerWords(value) !== length) reader.fail('a big integer that is longer than it must be');
  return value;
}
