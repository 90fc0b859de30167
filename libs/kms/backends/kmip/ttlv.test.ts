import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromHex, toHex } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { decodeTtlv, encodeTtlv, type Item, MAX_MESSAGE_BYTES } from './ttlv.ts';

const tag = 0x420020;

// KMIP 1.4 section 9.1.2, all its examples.
for (const [hex, item] of [
  ['420020 02 00000004 0000000800000000', { tag, type: 'integer', value: 8 }],
  ['420020 03 00000008 01b69b4ba5749200', { tag, type: 'longInteger', value: 123456789000000000n }],
  [
    '420020 04 00000010 0000000003fd35eb6bc2df4618080000',
    { tag, type: 'bigInteger', value: 1234567890000000000000000000n },
  ],
  ['420020 05 00000004 000000ff00000000', { tag, type: 'enumeration', value: 255 }],
  ['420020 06 00000008 0000000000000001', { tag, type: 'boolean', value: true }],
  ['420020 07 0000000b 48656c6c6f20576f726c640000000000', { tag, type: 'textString', value: 'Hello World' }],
  ['420020 08 00000003 0102030000000000', { tag, type: 'byteString', value: Uint8Array.of(1, 2, 3) }],
  [
    '420020 09 00000008 0000000047da67f8',
    { tag, type: 'dateTime', value: BigInt(Date.parse('2008-03-14T11:56:40Z') / 1000) },
  ],
  ['420020 0a 00000004 000d2f0000000000', { tag, type: 'interval', value: 10 * 24 * 3600 }],
  [
    '420020 01 00000020 420004 05 00000004 000000fe00000000 420005 02 00000004 000000ff00000000',
    {
      tag,
      type: 'structure',
      value: [
        { tag: 0x420004, type: 'enumeration', value: 254 },
        { tag: 0x420005, type: 'integer', value: 255 },
      ],
    },
  ],
] as const satisfies readonly (readonly [string, Item])[]) {
  test(`the specification's example of type ${item.type} is written and read`, () => {
    const bytes = fromHex(hex.replaceAll(' ', ''));
    assert.equal(toHex(encodeTtlv(item)), toHex(bytes));
    assert.deepEqual(decodeTtlv(bytes), item);
  });
}

const tags = fc.integer({ min: 0x420000, max: 0x42ffff });
const int64 = fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n });
const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const record: typeof fc.record = (model: object) => fc.record(model, { noNullPrototype: true }) as never;
const leaf = fc.oneof(
  record({ tag: tags, type: fc.constant('integer' as const), value: fc.integer() }),
  record({ tag: tags, type: fc.constantFrom('enumeration' as const, 'interval' as const), value: uint32 }),
  record({ tag: tags, type: fc.constant('longInteger' as const), value: int64 }),
  record({
    tag: tags,
    type: fc.constant('bigInteger' as const),
    value: fc.bigInt({ min: -(1n << 300n), max: 1n << 300n }),
  }),
  record({ tag: tags, type: fc.constant('boolean' as const), value: fc.boolean() }),
  record({ tag: tags, type: fc.constant('textString' as const), value: fc.string({ unit: 'grapheme' }) }),
  record({ tag: tags, type: fc.constant('byteString' as const), value: fc.uint8Array() }),
  record({
    tag: tags,
    type: fc.constantFrom('dateTime' as const, 'dateTimeExtended' as const),
    value: int64,
  }),
);
const items = fc.letrec<{ item: Item }>((tie) => ({
  item: fc.oneof(
    { maxDepth: 6 },
    leaf as fc.Arbitrary<Item>,
    record({
      tag: tags,
      type: fc.constant('structure' as const),
      value: fc.array(tie('item'), { maxLength: 6 }),
    }),
  ),
})).item;

test('what is written is read, and whole eights of bytes', () => {
  fc.assert(
    fc.property(items, (item) => {
      const bytes = encodeTtlv(item);
      assert.equal(bytes.length % 8, 0);
      assert.deepEqual(decodeTtlv(bytes), item);
    }),
  );
});

test('a message cut anywhere is refused, with an offset', () => {
  fc.assert(
    fc.property(items, fc.nat(), (item, at) => {
      const bytes = encodeTtlv(item);
      assert.throws(
        () => decodeTtlv(bytes.subarray(0, at % bytes.length)),
        (error) => error instanceof ParseError && error.offset !== undefined,
      );
    }),
  );
});

test('of every message with one bit flipped there is one encoding, or it is refused', () => {
  fc.assert(
    fc.property(items, fc.nat(), (item, bit) => {
      const bytes = encodeTtlv(item);
      bytes[(bit >> 3) % bytes.length]! ^= 1 << (bit & 7);
      try {
        assert.equal(toHex(encodeTtlv(decodeTtlv(bytes))), toHex(bytes));
      } catch (error) {
        assert.ok(error instanceof ParseError);
      }
    }),
  );
});

const nested = (depth: number): Item =>
  depth === 1
    ? { tag, type: 'structure', value: [] }
    : { tag, type: 'structure', value: [nested(depth - 1)] };

for (const [what, bytes] of [
  ['nothing', ''],
  ['a header alone', '4200200200000004'],
  ['a tag of nobody', '550020 02 00000004 0000000800000000'],
  ['an unknown type', '420020 0c 00000004 0000000800000000'],
  ['type 0', '420020 00 00000004 0000000800000000'],
  ['an integer of 8 bytes', '420020 02 00000008 0000000000000008'],
  ['a long integer of 4 bytes', '420020 03 00000004 0000000800000000'],
  ['a boolean of 2', '420020 06 00000008 0000000000000002'],
  ['padding that is not zero', '420020 02 00000004 0000000800000001'],
  ['a text that is not UTF-8', '420020 07 00000001 ff00000000000000'],
  ['a text without its padding', '420020 07 00000001 41'],
  ['a big integer of nothing', '420020 04 00000000'],
  ['a big integer of 12 bytes', '420020 04 0000000c 000000000000000000000001 00000000'],
  ['a big integer with a needless word', '420020 04 00000010 00000000000000000000000000000001'],
  ['a negative one with a needless word', '420020 04 00000010 ffffffffffffffffffffffffffffffff'],
  ['a structure that is longer than the message', '420020 01 00000010 420004 05 00000000'],
  [
    'a child that is longer than its structure',
    '420020 01 00000010 420004 07 00000010 0000000000000000 0000000000000000',
  ],
  ['a giant length', '420020 01 ffffffff'],
  ['bytes after the end', '420020 02 00000004 0000000800000000 00'],
] as const) {
  test(`${what} is refused`, () => {
    assert.throws(() => decodeTtlv(fromHex(bytes.replaceAll(' ', ''))), ParseError);
  });
}

test('bounds: 16 deep, 2000 items, 64 KiB', () => {
  assert.deepEqual(decodeTtlv(encodeTtlv(nested(16))), nested(16));
  assert.throws(() => decodeTtlv(encodeTtlv(nested(17))), ParseError);
  const many = (count: number): Item => ({
    tag,
    type: 'structure',
    value: Array.from({ length: count - 1 }, () => ({ tag, type: 'textString', value: '' }) as const),
  });
  assert.deepEqual(decodeTtlv(encodeTtlv(many(2000))), many(2000));
  assert.throws(() => decodeTtlv(encodeTtlv(many(2001))), ParseError);
  const large = (length: number): Item => ({ tag, type: 'byteString', value: new Uint8Array(length) });
  assert.equal(encodeTtlv(large(MAX_MESSAGE_BYTES - 8)).length, MAX_MESSAGE_BYTES);
  assert.throws(() => encodeTtlv(large(MAX_MESSAGE_BYTES)), RangeError);
  assert.throws(() => decodeTtlv(new Uint8Array(MAX_MESSAGE_BYTES + 8)), ParseError);
});

test('numbers out of their range are not written', () => {
  for (const item of [
    { tag, type: 'integer', value: 2 ** 31 },
    { tag, type: 'enumeration', value: -1 },
    { tag, type: 'interval', value: 1.5 },
    { tag, type: 'longInteger', value: 1n << 63n },
    { tag, type: 'dateTime', value: -(1n << 63n) - 1n },
    { tag: 1 << 24, type: 'integer', value: 1 },
  ] as const satisfies readonly Item[])
    assert.throws(() => encodeTtlv(item), RangeError);
});
