import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { runTethered } from './tether.ts';

const root = process.getuid?.() !== 0 && 'needs root: mounts';

/** Mounts something, starts a process that has left its group and ignores what can be ignored, and goes on for long. */
const script = (folder: string) => `
  mount -t tmpfs none ${folder}/mounted
  setsid sh -c 'trap "" HUP INT TERM; sleep 601; : ${folder}' &
  touch ${folder}/ready
  sleep 602; : ${folder}`;

/** Processes whose arguments name a folder, but for this one. */
async function processesOf(folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (pid !== String(process.pid) && command.includes(folder)) found.push(command);
  }
  return found;
}

async function until(what: () => Promise<boolean>): Promise<void> {
  const limit = Date.now() + 30_000;
  while (!(await what())) {
    assert.ok(Date.now() < limit, 'not within 30 s');
    await delay(20);
  }
}

const isReady = (folder: string) => async () =>
  (await stat(join(folder, 'ready')).catch(() => undefined)) !== undefined;

it('leaves no process and no mount when it is stopped', { skip: root }, async () => {
  await using folder = await temporaryFolder();
  await mkdir(folder.file('mounted'));
  const stop = new AbortController();
  const running = runTethered(['sh', '-c', script(folder.path)], {
    timeoutMs: 60_000,
    signal: stop.signal,
  });
  const refused = assert.rejects(running, { code: 'ERR_PROGRAM_ABORTED' });
  await until(isReady(folder.path));
  assert.ok((await processesOf(folder.path)).length >= 2);
  assert.ok(!(await readFile('/proc/self/mountinfo', 'utf8')).includes(folder.path));
  stop.abort();
  await refused;
  await until(async () => (await processesOf(folder.path)).length === 0);
});

it('leaves no process when who started it is killed', { skip: root }, async () => {
  await using folder = await temporaryFolder();
  await mkdir(folder.file('mounted'));
  const source = `
    import { runTethered } from ${JSON.stringify(join(import.meta.dirname, 'tether.ts'))};
    await runTethered(['sh', '-c', ${JSON.stringify(script(folder.path))}], { timeoutMs: 60_000 });`;
  const owner = spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: 'inherit' });
  const ended = once(owner, 'exit');
  await until(isReady(folder.path));
  owner.kill('SIGKILL');
  await ended;
  await until(async () => (await processesOf(folder.path)).length === 0);
});

it('says what the program said when it fails', async () => {
  await assert.rejects(runTethered(['sh', '-c', 'echo why >&2; exit 3'], { timeoutMs: 10_000 }), {
    code: 'ERR_PROGRAM_FAILED',
    message: /exited with 3: why/,
  });
});
