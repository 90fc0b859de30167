import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Holder, Places } from './places.ts';

interface Guest extends Holder {
  readonly name: string;
  rank?: number | undefined;
}

function house(max: number, maxPerAddress: number) {
  const evicted: string[] = [];
  const places = new Places<Guest>({
    max,
    maxPerAddress,
    rank: (guest) => ('rank' in guest ? guest.rank : 0),
    evict: (guest) => {
      assert.equal(places.has(guest), false);
      evicted.push(guest.name);
    },
  });
  const come = (address: string, name: string, rank?: { rank: number | undefined }) =>
    places.add({ address, name, ...rank });
  return { places, come, evicted };
}

test('an address that has its share gives up its own oldest, and nobody else’s', () => {
  const { come, evicted, places } = house(10, 3);
  for (const name of ['b1', 'a1', 'a2', 'a3', 'a4', 'a5']) assert.ok(come(name[0]!, name));
  assert.deepEqual(evicted, ['a1', 'a2']);
  assert.equal(places.size, 4);
});

test('a full house: the address that holds the most makes room for one that holds less', () => {
  const { come, evicted } = house(6, 4);
  for (const name of ['a1', 'b1', 'a2', 'b2', 'a3', 'b3']) come(name[0]!, name);
  assert.ok(come('c', 'c1'));
  assert.ok(come('c', 'c2'));
  assert.ok(come('c', 'c3'));
  // a, b and c hold two each and one is left over: from here on everybody replaces their own.
  assert.equal(evicted.length, 3);
  assert.equal(evicted.filter((name) => name.startsWith('c')).length, 1);
});

test('four addresses that hold everything do not keep a fifth out, nor take its place from it', () => {
  const { come, evicted, places } = house(256, 64);
  for (let i = 0; i < 256; i++) come(`a${i % 4}`, `a${i}`);
  const honest = { address: 'honest', name: 'honest' };
  assert.ok(places.add(honest));
  for (let i = 256; i < 2000; i++) come(`a${i % 4}`, `a${i}`);
  assert.ok(places.has(honest));
  assert.equal(evicted.includes('honest'), false);
  assert.equal(places.size, 256);
});

test('who may not go stays; lower ranks go first; without anybody to go the newcomer is turned away', () => {
  const { come, evicted } = house(3, 3);
  come('a', 'busy', { rank: undefined });
  come('a', 'greeted', { rank: 1 });
  come('a', 'silent', { rank: 0 });
  assert.ok(come('b', 'b1', { rank: undefined }));
  assert.ok(come('b', 'b2', { rank: undefined }));
  assert.deepEqual(evicted, ['silent', 'greeted']);
  assert.equal(come('c', 'c1'), false);
});
