import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Semaphore } from './semaphore.ts';

const signal = new AbortController().signal;

test('addresses take turns, however many wait of one of them', async () => {
  const semaphore = new Semaphore(1);
  const done: string[] = [];
  const gate = Promise.withResolvers<void>();
  const runs = [semaphore.run('first', () => gate.promise, signal)];
  for (const name of ['a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'c1']) {
    runs.push(
      semaphore.run(
        name[0]!,
        async () => {
          done.push(name);
        },
        signal,
      ),
    );
  }
  gate.resolve();
  await Promise.all(runs);
  assert.deepEqual(done, ['a1', 'b1', 'c1', 'a2', 'b2', 'a3', 'a4']);
});

test('a waiter that gives up leaves its queue; a place that was free comes back', async () => {
  const semaphore = new Semaphore(1);
  const gate = Promise.withResolvers<void>();
  const first = semaphore.run('a', () => gate.promise, signal);
  const controller = new AbortController();
  const given = semaphore.run('b', async () => assert.fail('it had given up'), controller.signal);
  const last = semaphore.run('c', async () => 'c', signal);
  controller.abort(new Error('gone'));
  await assert.rejects(given, /gone/);
  gate.resolve();
  await first;
  assert.equal(await last, 'c');
  assert.equal(await semaphore.run('b', async () => 'again', signal), 'again');
});

test('no more than the limit work, and a failed one gives its place back', async () => {
  const semaphore = new Semaphore(2);
  let now = 0;
  let most = 0;
  const work = async () => {
    most = Math.max(most, ++now);
    await new Promise((resolve) => setImmediate(resolve));
    now--;
    throw new Error('failed');
  };
  const outcomes = await Promise.allSettled(
    Array.from({ length: 10 }, (_, i) => semaphore.run(`${i % 3}`, work, signal)),
  );
  assert.ok(outcomes.every(({ status }) => status === 'rejected'));
  assert.equal(most, 2);
});
