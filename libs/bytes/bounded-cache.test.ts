import assert from 'node:assert/strict';
import { it } from 'node:test';
import { BoundedCache } from './bounded-cache.ts';

it('a bounded cache forgets what was not used for longest', () => {
  const cache = new BoundedCache<number>(2);
  cache.set('a', 1);
  cache.set('b', 2);
  assert.equal(cache.get('a'), 1);
  cache.set('c', 3);
  assert.equal(cache.get('b'), undefined);
  assert.equal(cache.get('a'), 1);
  cache.set('a', 4);
  assert.equal(cache.size, 2);
  assert.equal(cache.get('a'), 4);
  for (let i = 0; i < 1000; i++) cache.set(String(i), i);
  assert.equal(cache.size, 2);
});
