import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { describe, it } from 'node:test';
import { ParseError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { concat, equal, isZero, zero } from './bytes.ts';
import {
  fromBase64,
  fromBase64Url,
  fromHex,
  fromUtf8,
  toBase64,
  toBase64Url,
  toHex,
  toUtf8,
} from './encoding.ts';

const bytes = fc.uint8Array({ maxLength: 300 });
const plain = (buffer: Buffer) => new Uint8Array(buffer);

describe('hexadecimal and base64', () => {
  it('refuse what is not canonical', () => {
    for (const text of ['0', '0g', ' 00', '00 ', '0x00', '00\n', 'é0'])
      assert.throws(() => fromHex(text), ParseError, text);
    for (const text of [
      'A',
      'AA',
      'AAA',
      'AA=',
      'A===',
      '====',
      '=AAA',
      'AA=A',
      'AB==',
      'AAB=',
      'AA==AA==',
      'AAA-',
      'AAA_',
      'AAA\n',
      ' AAA',
      'AAAé',
      '\u0141AAA',
    ])
      assert.throws(() => fromBase64(text), ParseError, text);
    for (const text of ['AAA+', 'AAA/', 'AAB=', 'AA'])
      assert.throws(() => fromBase64Url(text), ParseError, text);
  });

  it('agree with node on any bytes', () => {
    fc.assert(
      fc.property(bytes, (value) => {
        assert.equal(toHex(value), Buffer.from(value).toString('hex'));
        assert.equal(toBase64(value), Buffer.from(value).toString('base64'));
        assert.equal(toBase64Url(value).replace(/=+$/, ''), Buffer.from(value).toString('base64url'));
        assert.deepEqual(fromHex(toHex(value).toUpperCase()), value);
        assert.deepEqual(fromBase64(toBase64(value)), value);
        assert.deepEqual(fromBase64Url(toBase64Url(value)), value);
      }),
    );
  });

  it('take a text only if it is what they would print', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'AB+/=w-_\n'), maxLength: 12 }), (text) => {
        let decoded: Uint8Array;
        try {
          decoded = fromBase64(text);
        } catch (error) {
          assert.ok(error instanceof ParseError);
          // A text that Node reads and prints again unchanged must not be refused.
          assert.notEqual(
            plain(Buffer.from(text, 'base64')).length > 0 &&
              Buffer.from(text, 'base64').toString('base64') === text,
            true,
          );
          return;
        }
        assert.equal(toBase64(decoded), text);
      }),
      { numRuns: 2000 },
    );
  });

  it('encode a megabyte', () => {
    const large = new Uint8Array(1 << 20).map((_, i) => i * 7);
    assert.ok(equal(fromBase64(toBase64(large)), large));
  });
});

describe('UTF-8', () => {
  it('refuses bytes that are none', () => {
    for (const wrong of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xe2, 0x82]]) {
      assert.throws(() => fromUtf8(Uint8Array.from(wrong)), ParseError);
    }
  });
  it('goes there and back', () =>
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        // A leading byte order mark is not text to a decoder.
        if (!text.startsWith('\ufeff')) assert.equal(fromUtf8(toUtf8(text)), text);
      }),
    ));
});

describe('bytes', () => {
  it('compares by value and length', () => {
    fc.assert(fc.property(bytes, bytes, (a, b) => assert.equal(equal(a, b), Buffer.compare(a, b) === 0)));
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1 }),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (a, at, flip) => {
          const b = a.slice();
          b[at % b.length]! ^= flip;
          assert.equal(equal(a, b), false);
          assert.equal(equal(a, a.slice()), true);
        },
      ),
    );
    assert.equal(equal(new Uint8Array(1), new Uint8Array(2)), false);
  });

  it('joins in order, in a new array', () => {
    const first = Uint8Array.of(1);
    const joined = concat(first, new Uint8Array(), Uint8Array.of(2, 3));
    first[0] = 9;
    assert.deepEqual(joined, Uint8Array.of(1, 2, 3));
  });

  it('overwrites, and tells zeros from nothing', () => {
    const secret = Uint8Array.of(1, 2);
    zero(secret);
    assert.ok(isZero(secret));
    assert.equal(isZero(new Uint8Array()), false);
    assert.equal(isZero(Uint8Array.of(0, 1)), false);
  });
});
