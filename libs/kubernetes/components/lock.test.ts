import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { it } from 'node:test';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { withLock } from './lock.ts';

const signal = AbortSignal.timeout(60_000);
const silent = { signal, onDetail: () => {} };

/** Another process that has the lock. */
async function holder(folder: TemporaryFolder, shared = false): Promise<ChildProcess> {
  const source = `
    import { withLock } from ${JSON.stringify(join(import.meta.dirname, 'lock.ts'))};
    const signal = AbortSignal.timeout(60_000);
    await withLock(${JSON.stringify(folder.file('x'))}, { signal, onDetail() {}, shared: ${shared} }, async () => {
      console.log('taken');
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    });`;
  const other = spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(other.stdout!, 'data');
  return other;
}

async function kill(other: ChildProcess): Promise<void> {
  const ended = once(other, 'exit');
  other.kill('SIGKILL');
  await ended;
}

it('says who is waited for, and goes on when that process is killed', async () => {
  await using folder = await temporaryFolder();
  const other = await holder(folder);
  const said: string[] = [];
  const onDetail = (text: string) => {
    said.push(text);
    other.kill('SIGKILL');
  };
  assert.equal(await withLock(folder.file('x'), { signal, onDetail }, async () => 'done'), 'done');
  assert.deepEqual(said, [`waiting for process ${other.pid}, which is at work in ${folder.file('x')}`]);
});

it('does not wait for longer than was said', async () => {
  await using folder = await temporaryFolder();
  const other = await holder(folder);
  const message = new RegExp(`process ${other.pid} is still at work in ${folder.path}`);
  for (const timeoutMs of [0, 50]) {
    const taken = withLock(folder.file('x'), { ...silent, timeoutMs }, async () => assert.fail());
    await assert.rejects(taken, { code: 'ERR_BUILD_LOCKED', message });
  }
  await kill(other);
});

it('stops waiting when the caller gives up, and leaves nobody in the queue', async () => {
  await using folder = await temporaryFolder();
  const other = await holder(folder);
  const giveUp = new AbortController();
  const options = { signal: giveUp.signal, onDetail: () => setTimeout(() => giveUp.abort(), 50) };
  await assert.rejects(
    withLock(folder.file('x'), options, async () => assert.fail()),
    { name: 'AbortError' },
  );
  await assert.rejects(
    withLock(folder.file('x'), options, async () => assert.fail()),
    { name: 'AbortError' },
  );
  await kill(other);
  assert.equal(await withLock(folder.file('x'), silent, async () => 'done'), 'done');
});

it('is shared by those who want it so, and only by those', async () => {
  await using folder = await temporaryFolder();
  const other = await holder(folder, true);
  const now = { ...silent, timeoutMs: 0 };
  assert.equal(await withLock(folder.file('x'), { ...now, shared: true }, async () => 'done'), 'done');
  await assert.rejects(
    withLock(folder.file('x'), now, async () => assert.fail()),
    { code: 'ERR_BUILD_LOCKED' },
  );
  await kill(other);
});

it('is free after work that failed', async () => {
  await using folder = await temporaryFolder();
  const failing = withLock(folder.file('x'), silent, () => Promise.reject(new Error('no')));
  await assert.rejects(failing, { message: 'no' });
  assert.equal(await withLock(folder.file('x'), silent, async () => 'done'), 'done');
});
