import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BusyError } from '@asterism/errors/errors';
import { RateLimiter } from './rate-limiter.ts';
import { Refusals } from './refusals.ts';

function clocked(limits: { burst: number; perSecond: number; maxKeys?: number }) {
  let at = 0;
  const limiter = new RateLimiter({ ...limits, now: () => at });
  const taken = (key: string, tries: number) => {
    let count = 0;
    for (let i = 0; i < tries; i++) {
      try {
        limiter.take(key);
        count++;
      } catch (error) {
        assert.ok(error instanceof BusyError && error.code === 'ERR_RATE_LIMIT');
      }
    }
    return count;
  };
  const wait = (ms: number) => {
    at += ms;
  };
  return { taken, wait };
}

test('a burst, then the rate, then a burst again after a pause', () => {
  const { taken, wait } = clocked({ burst: 5, perSecond: 2 });
  assert.equal(taken('a', 20), 5);
  wait(1000);
  assert.equal(taken('a', 20), 2);
  wait(499);
  assert.equal(taken('a', 20), 0);
  wait(1);
  assert.equal(taken('a', 20), 1);
  wait(1e9);
  assert.equal(taken('a', 20), 5);
});

test('asking while refused does not prolong the wait', () => {
  const { taken, wait } = clocked({ burst: 1, perSecond: 1 });
  taken('a', 1);
  for (let i = 0; i < 99; i++) {
    wait(10);
    assert.equal(taken('a', 3), 0);
  }
  wait(11);
  assert.equal(taken('a', 3), 1);
});

test('one caller does not use up what is for another; memory is bounded', () => {
  const { taken } = clocked({ burst: 1, perSecond: 1, maxKeys: 3 });
  for (const key of ['a', 'b', 'c']) assert.equal(taken(key, 2), 1);
  assert.equal(taken('a', 1), 0);
  // b has not been seen for longest and is forgotten for d; a and c are still known.
  assert.equal(taken('d', 1), 1);
  assert.equal(taken('a', 1), 0);
  assert.equal(taken('c', 1), 0);
  assert.equal(taken('b', 1), 1);
});

test('of refusals in a row those with a power of two are worth a line', () => {
  let at = 0;
  const refusals = new Refusals(() => at);
  const counted = Array.from({ length: 100 }, () => refusals.count('a')).filter(
    (count) => count !== undefined,
  );
  assert.deepEqual(counted, [1, 2, 4, 8, 16, 32, 64]);
  assert.equal(refusals.count('b'), 1);
  at += 60_001;
  assert.equal(refusals.count('a'), 1);
});
