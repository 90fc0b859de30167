import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ParseError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { Reader } from './reader.ts';
import { Writer } from './writer.ts';

describe('Reader', () => {
  it('throws with the offset where bytes are missing, and moves no further', () => {
    const reader = new Reader(Uint8Array.of(1, 2, 3), 100);
    reader.u8();
    for (const read of [
      () => reader.u24be(),
      () => reader.u32be(),
      () => reader.u32le(),
      () => reader.u64be(),
      () => reader.u64le(),
      () => reader.bytes(3),
      () => reader.bytes(0xffffffff),
      () => reader.sub(3),
      () => reader.end(),
    ]) {
      assert.throws(read, (error) => error instanceof ParseError && error.offset === 101);
    }
    assert.equal(reader.u16be(), 0x0203);
    reader.end();
  });

  it('counts the offsets of inner structures from the outermost start', () => {
    const inner = new Reader(new Uint8Array(10)).sub(8);
    inner.bytes(3);
    const innermost = inner.sub(4);
    innermost.u8();
    assert.equal(innermost.offset, 4);
    assert.throws(
      () => innermost.u32be(),
      (error) => error instanceof ParseError && error.offset === 4,
    );
  });

  it('reads views that start anywhere in their buffer', () => {
    const view = Uint8Array.of(9, 9, 1, 2, 9).subarray(2, 4);
    const reader = new Reader(view);
    assert.equal(reader.u16le(), 0x0201);
    assert.throws(() => reader.u8(), ParseError);
  });
});

describe('Writer', () => {
  it('refuses integers that do not fit', () => {
    for (const [write, value] of [
      ['u8', 256],
      ['u8', -1],
      ['u16be', 0x10000],
      ['u16le', 1.5],
      ['u24be', 0x1000000],
      ['u32be', 2 ** 32],
      ['u32le', Number.NaN],
    ] as const) {
      assert.throws(() => new Writer()[write](value), RangeError, write);
    }
    assert.throws(() => new Writer().u64be(1n << 64n), RangeError);
    assert.throws(() => new Writer().u64be(-1n), RangeError);
  });

  it('writes what a Reader reads, across its growth', () => {
    const field = fc.oneof(
      fc.record({ kind: fc.constantFrom('u8' as const), value: fc.nat(0xff) }),
      fc.record({ kind: fc.constantFrom('u16be' as const, 'u16le' as const), value: fc.nat(0xffff) }),
      fc.record({ kind: fc.constantFrom('u24be' as const), value: fc.nat(0xffffff) }),
      fc.record({
        kind: fc.constantFrom('u32be' as const, 'u32le' as const),
        value: fc.integer({ min: 0, max: 0xffffffff }),
      }),
      fc.record({
        kind: fc.constant('u64be' as const),
        value: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      }),
      fc.record({ kind: fc.constant('bytes' as const), value: fc.uint8Array({ maxLength: 300 }) }),
    );
    fc.assert(
      fc.property(fc.array(field, { maxLength: 60 }), (fields) => {
        const writer = new Writer();
        for (const f of fields) {
          if (f.kind === 'bytes') writer.bytes(f.value);
          else if (f.kind === 'u64be') writer.u64be(f.value);
          else writer[f.kind](f.value);
        }
        const bytes = writer.finish();
        assert.equal(bytes.length, writer.length);
        const reader = new Reader(bytes);
        for (const f of fields) {
          if (f.kind === 'bytes') assert.deepEqual(reader.bytes(f.value.length), f.value);
          else assert.equal(reader[f.kind](), f.value);
        }
        reader.end();
      }),
    );
  });

  it('gives copies', () => {
    const writer = new Writer().u8(1);
    const first = writer.finish();
    writer.u8(2);
    assert.deepEqual(first, Uint8Array.of(1));
  });
});
