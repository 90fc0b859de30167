import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isZero } from '@asterism/bytes/bytes';
import { ParseError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { Incoming } from './framing.ts';
import { bytes, structure } from './items.ts';
import { TAG } from './tags.ts';
import { encodeTtlv } from './ttlv.ts';

const answer = encodeTtlv(structure(TAG.responseMessage, bytes(TAG.data, new Uint8Array(100).fill(0xab))));

test('an answer in any pieces is put together, and the pieces are zeroed', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(answer.length)), (cuts) => {
      const at = [0, ...cuts, answer.length].sort((a, b) => a - b);
      const incoming = new Incoming();
      let whole: Uint8Array | undefined;
      for (let i = 1; i < at.length; i++) {
        assert.equal(whole === undefined || at[i] === at[i - 1], true);
        const piece = answer.slice(at[i - 1], at[i]);
        whole = incoming.push(piece) ?? whole;
        assert.ok(piece.length === 0 || isZero(piece));
      }
      assert.deepEqual(whole, answer);
    }),
  );
});

test('more than an answer, in any pieces, is refused', () => {
  fc.assert(
    fc.property(fc.nat(answer.length), fc.uint8Array({ minLength: 1 }), (cut, more) => {
      const incoming = new Incoming();
      incoming.push(answer.slice(0, cut));
      assert.throws(() => incoming.push(Uint8Array.of(...answer.slice(cut), ...more)), ParseError);
    }),
  );
});

test('anything but a response message is refused at its eighth byte', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 8, maxLength: 8 }), (header) => {
      fc.pre(header[0] !== 0x42);
      assert.throws(() => new Incoming().push(header), ParseError);
    }),
  );
});
