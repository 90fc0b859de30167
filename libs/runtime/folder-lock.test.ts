import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { locked } from './folder-lock.ts';

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'asterism-lock-'));
});
after(() => rm(folder, { recursive: true, force: true }));

it('lets one in at a time, also after one that failed', async () => {
  let inside = 0;
  const enter = async (fail: boolean) => {
    assert.equal(++inside, 1);
    await sleep(50);
    inside--;
    if (fail) throw new Error('as told');
    return 'done';
  };
  const results = await Promise.allSettled(
    [false, true, false, true, false].map((fail) => locked(folder, 60, () => enter(fail))),
  );
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'rejected', 'fulfilled'],
  );
});

it('names its owner, and is free again when that was killed', async () => {
  const script = `
    import { locked } from ${JSON.stringify(join(import.meta.dirname, 'folder-lock.ts'))};
    await locked(${JSON.stringify(folder)}, 0, async () => {
      process.stdout.write('inside');
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    });`;
  const owner = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(owner.stdout, 'data');
  let entered = false;
  const waiting = locked(folder, 60, async () => {
    entered = true;
  });
  await sleep(200);
  assert.equal(entered, false);
  await assert.rejects(
    locked(folder, 0, async () => {}),
    { code: 'ERR_LOCKED', message: new RegExp(`^process ${owner.pid} is at work in ${folder}; `) },
  );
  await assert.rejects(
    locked(folder, 1, async () => {}),
    {
      code: 'ERR_LOCKED',
      message: new RegExp(`^process ${owner.pid} has been at work for 1 s in ${folder}; `),
    },
  );
  owner.kill('SIGKILL');
  await waiting;
});

it('makes nothing where the folder is gone', async () => {
  const gone = join(folder, 'gone');
  await assert.rejects(
    locked(gone, 0, async () => {}),
    { code: 'ERR_LOCK' },
  );
  assert.ok(!existsSync(gone));
});
