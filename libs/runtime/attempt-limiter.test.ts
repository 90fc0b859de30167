import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AttemptLimiter, callerOf } from './attempt-limiter.ts';
import { FairTurns } from './fair-turns.ts';

describe('attempt limiter', () => {
  const limits = { freeAttempts: 2, firstWaitMs: 10, maxWaitMs: 40 };

  it('one caller cannot keep another out, whatever it does', () => {
    const limiter = new AttemptLimiter({ ...limits, now: () => 0 });
    for (let attempt = 0; attempt < 1000; attempt++) limiter.failed('10.0.0.1');
    assert.equal(limiter.waitMs('10.0.0.1'), 40);
    assert.equal(limiter.waitMs('10.0.0.2'), 0);
  });

  it('another address of the same IPv6 network is no new caller', () => {
    const limiter = new AttemptLimiter({ ...limits, now: () => 0 });
    for (let host = 1; host <= 3; host++) limiter.failed(`2001:db8::${host}`);
    assert.equal(limiter.waitMs('2001:db8:0:0:ffff::9'), 20);
    assert.equal(limiter.waitMs('2001:db8:0:1::1'), 0);
  });

  it('waits longer after each further mistake, up to the bound, and forgets them after a success', () => {
    let now = 0;
    const limiter = new AttemptLimiter({ ...limits, now: () => now });
    for (const wait of [0, 10, 20, 40, 40]) {
      limiter.failed('a');
      assert.equal(limiter.waitMs('a'), wait);
      now += wait;
    }
    limiter.succeeded('a');
    limiter.failed('a');
    assert.equal(limiter.waitMs('a'), 0);
  });

  it('remembers no more callers than it may', () => {
    const limiter = new AttemptLimiter({ ...limits, freeAttempts: 1, maxCallers: 2, now: () => 0 });
    for (const caller of ['a', 'b', 'c']) limiter.failed(caller);
    assert.deepEqual(
      ['a', 'b', 'c'].map((caller) => limiter.waitMs(caller)),
      [0, 10, 10],
    );
  });

  it('knows an address in every form', () => {
    for (const [address, caller] of [
      ['10.0.0.1', '10.0.0.1'],
      ['::1', '0:0:0:0::/64'],
      ['fe80::1%eth0', 'fe80:0:0:0::/64'],
      ['2001:DB8:0:0:1:2:3:4', '2001:db8:0:0::/64'],
      ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
      ['2001:db8:1::', '2001:db8:1:0::/64'],
      ['unix', 'unix'],
    ] as const)
      assert.equal(callerOf(address), caller);
  });
});

describe('fair turns', () => {
  /** Work that ends when it is told to. */
  function held() {
    const { promise, resolve } = Promise.withResolvers<void>();
    return { work: () => promise, end: resolve };
  }

  it('a caller that asks again and again has one place; others come in the order in which they asked', async () => {
    const turns = new FairTurns();
    const first = held();
    const order: string[] = [];
    const begun = turns.take('attacker', () => first.work().then(() => order.push('attacker')));
    for (let ask = 0; ask < 100; ask++)
      await assert.rejects(turns.take('attacker', first.work), { code: 'ERR_BUSY' });
    const owner = turns.take('owner', async () => order.push('owner'));
    const other = turns.take('other', async () => order.push('other'));
    first.end();
    await Promise.all([begun, owner, other]);
    assert.deepEqual(order, ['attacker', 'owner', 'other']);
  });

  it('one is done at a time, and one that fails keeps nobody from its turn', async () => {
    const turns = new FairTurns();
    let running = 0;
    const done = await Promise.allSettled(
      ['a', 'b', 'c'].map((caller) =>
        turns.take(caller, async () => {
          assert.equal(++running, 1);
          await new Promise((resolve) => setImmediate(resolve));
          running--;
          if (caller === 'a') throw new Error('failed');
        }),
      ),
    );
    assert.deepEqual(
      done.map(({ status }) => status),
      ['rejected', 'fulfilled', 'fulfilled'],
    );
    await turns.take('a', async () => {});
  });

  it('the line has an end', async () => {
    const turns = new FairTurns(2);
    const first = held();
    const waiting = ['a', 'b'].map((caller) => turns.take(caller, first.work));
    await assert.rejects(turns.take('c', first.work), { code: 'ERR_BUSY' });
    first.end();
    await Promise.all(waiting);
    await turns.take('c', async () => {});
  });
});
