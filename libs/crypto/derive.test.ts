import assert from 'node:assert/strict';
import { hkdfSync } from 'node:crypto';
import { test } from 'node:test';
import { toHex } from '@asterism/bytes/encoding';
import fc from 'fast-check';
import { clusterId, deriveKey, keyDeriver, MAX_DERIVED_BYTES, MEASUREMENT_SECRET_ID } from './derive.ts';

const range = (from: number, to: number) => Uint8Array.from({ length: to - from + 1 }, (_, i) => from + i);
const bytes = (value: number) => new Uint8Array(32).fill(value);

for (const [what, call] of [
  ['an empty secret', () => deriveKey(new Uint8Array(), bytes(1), 'key-x', 32)],
  ['an empty salt', () => deriveKey(bytes(1), new Uint8Array(), 'key-x', 32)],
  ['no name', () => deriveKey(bytes(1), bytes(1), '', 32)],
  ['no length', () => deriveKey(bytes(1), bytes(1), 'key-x', 0)],
  ['a negative length', () => deriveKey(bytes(1), bytes(1), 'key-x', -1)],
  ['a fractional length', () => deriveKey(bytes(1), bytes(1), 'key-x', 1.5)],
  ['more than HKDF can give', () => deriveKey(bytes(1), bytes(1), 'key-x', MAX_DERIVED_BYTES + 1)],
] as const) {
  test(`${what} is refused`, () => assert.throws(call, { code: 'ERR_DERIVE' }));
}

// key-vectors.md section 1, 2
for (const [secret, salt, info, expected] of [
  [
    bytes(0),
    bytes(0),
    'key-00000000-0000-0000-0000-000000000000',
    '2b5c829f691bfd4232f8aac464bccc07e605c7c8e82cbca09837e86d0b6d0665',
  ],
  [
    bytes(0xff),
    bytes(0xff),
    'key-ffffffff-ffff-ffff-ffff-ffffffffffff',
    '1484aa39d3415e906e07940ff215d8b1eee705d3027dba93306af4abff4f70be',
  ],
  [
    range(0x40, 0x5f),
    range(0x60, 0x7f),
    MEASUREMENT_SECRET_ID,
    '4790578891f3fe6cc22cb661ecdc1b7e33121b1287546a52ba33a9136719c213',
  ],
  [
    range(0, 0x1f),
    range(0x20, 0x3f),
    MEASUREMENT_SECRET_ID,
    'ea7fedd14f5a29b1b8545592fc20bfdae06918e4ff447b1a0b8e4f3356005bda',
  ],
] as const) {
  test(`vector ${info} ${expected.slice(0, 8)}`, () => {
    assert.equal(toHex(deriveKey(secret, salt, info, 32)), expected);
  });
}

test('the cluster id follows the vectors, alone and in the chain from the master secret', () => {
  assert.equal(
    toHex(clusterId(range(0, 0x1f), range(0x20, 0x3f))),
    '128c164378fe8767f998fbdfe4b4d6463ec5ae1b664ea5999bc27417607ae9b6',
  );
  const measurementSecret = deriveKey(range(0, 0x1f), range(0x20, 0x3f), MEASUREMENT_SECRET_ID, 32);
  assert.equal(
    toHex(clusterId(measurementSecret, range(0x40, 0x5f))),
    'e7fd5a0e36fb56d69807aa36e68aee24438c1bf8766780b6106150f35b7aacba',
  );
});

test('a longer key begins with the shorter one, up to the most that HKDF gives', () => {
  const long = deriveKey(range(0, 0x4f), range(0x60, 0xaf), 'key-x', MAX_DERIVED_BYTES);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: MAX_DERIVED_BYTES }), (length) => {
      const short = deriveKey(range(0, 0x4f), range(0x60, 0xaf), 'key-x', length);
      assert.equal(Buffer.compare(short, long.subarray(0, length)), 0);
    }),
  );
});

test('secret, salt and name each change the key', () => {
  const keys = [
    deriveKey(bytes(1), bytes(2), 'key-a', 32),
    deriveKey(bytes(3), bytes(2), 'key-a', 32),
    deriveKey(bytes(1), bytes(3), 'key-a', 32),
    deriveKey(bytes(1), bytes(2), 'key-b', 32),
  ];
  assert.equal(new Set(keys.map(toHex)).size, 4);
});

test("the same as OpenSSL's HKDF, for any secret, salt, name and length", () => {
  const filled = (value: number) => new Uint8Array(32).fill(value);
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 200 });
  const name = fc.string({ minLength: 1, maxLength: 100, unit: 'binary' });
  fc.assert(
    fc.property(bytes, bytes, name, fc.integer({ min: 1, max: 300 }), (secret, salt, info, length) => {
      const derive = keyDeriver(secret, salt);
      const expected = new Uint8Array(
        hkdfSync('sha256', secret, salt, new TextEncoder().encode(info), length),
      );
      // Deriving one key changes nothing for the next.
      for (let i = 0; i < 2; i++) assert.deepEqual(derive(info, length), expected);
    }),
  );
  const longest = new Uint8Array(hkdfSync('sha256', filled(1), filled(2), 'key-x', MAX_DERIVED_BYTES));
  assert.deepEqual(deriveKey(filled(1), filled(2), 'key-x', MAX_DERIVED_BYTES), longest);
});
