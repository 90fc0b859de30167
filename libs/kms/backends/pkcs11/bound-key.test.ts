import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BOUND_KEY_BYTES, bindKey, unbindKey } from './bound-key.ts';

const keys = fc.uint8Array({ minLength: 32, maxLength: 32 });
const contexts = fc.string({ minLength: 1, maxLength: 512 });

test('a key is had back with its context only, and is bound differently each time', () => {
  fc.assert(
    fc.property(keys, contexts, contexts, (key, context, other) => {
      const bound = bindKey(key, context);
      assert.equal(bound.length, BOUND_KEY_BYTES);
      assert.deepEqual(unbindKey(bound, context), key);
      if (other !== context) assert.equal(unbindKey(bound, other), undefined);
      assert.notDeepEqual(bindKey(key, context), bound);
    }),
  );
});

test('other lengths, and a changed salt or check, are bound to nothing', () => {
  const bound = bindKey(new Uint8Array(32), 'context');
  for (const length of [0, 32, 63]) assert.equal(unbindKey(bound.slice(0, length), 'context'), undefined);
  assert.equal(unbindKey(Uint8Array.of(...bound, 0), 'context'), undefined);
  for (let at = 32; at < BOUND_KEY_BYTES; at++) {
    const changed = Uint8Array.from(bound);
    changed[at]! ^= 1;
    assert.equal(unbindKey(changed, 'context'), undefined);
  }
});
