import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DekCache } from './dek-cache.ts';

const entry = (value: number) => ({
  dek: new Uint8Array(32).fill(value),
  envelope: new Uint8Array(3).fill(value),
});
const isZeroed = ({ dek }: { dek: Uint8Array }) => dek.every((byte) => byte === 0);

test('a key is zeroed when its life is over, though nobody asks for it', async () => {
  const cache = new DekCache({ lifeMs: 40, entries: 10 });
  const [one, two] = [entry(1), entry(2)];
  cache.set('one', one);
  await sleep(25);
  cache.set('two', two);
  assert.equal(cache.get('one'), one);
  while (cache.size === 2) await sleep(1);
  assert.ok(isZeroed(one));
  assert.equal(cache.get('one'), undefined);
  while (cache.size === 1) await sleep(1);
  assert.ok(isZeroed(two));
});

test('use does not make a life longer, and a late timer does not either', async () => {
  const cache = new DekCache({ lifeMs: 30, entries: 10 });
  cache.set('one', entry(1));
  const ends = performance.now() + 31;
  // No timer runs while this does.
  while (performance.now() < ends) cache.get('one');
  assert.equal(cache.size, 1);
  assert.equal(cache.get('one'), undefined);
});

test('of more than there is room for, the oldest goes; so does what is replaced or cleared', () => {
  const cache = new DekCache({ lifeMs: 60_000, entries: 2 });
  const all = [entry(1), entry(2), entry(3), entry(4)] as const;
  cache.set('one', all[0]);
  cache.set('two', all[1]);
  cache.set('three', all[2]);
  assert.deepEqual([cache.size, cache.get('one')], [2, undefined]);
  assert.ok(isZeroed(all[0]) && !isZeroed(all[1]));
  cache.set('two', all[3]);
  assert.equal(cache.get('two'), all[3]);
  assert.ok(isZeroed(all[1]));
  cache.clear();
  assert.equal(cache.size, 0);
  assert.ok(all.every(isZeroed));
});
