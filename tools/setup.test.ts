import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmod, copyFile, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';

const root = join(import.meta.dirname, '..');

function setup(folder: string, path = process.env.PATH) {
  const { status, stdout, stderr } = spawnSync(join(folder, 'tools/setup'), [], {
    encoding: 'utf8',
    timeout: 120_000,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: path, TMPDIR: join(folder, 'tmp') },
  });
  return { status, output: stdout + stderr };
}

/** A clone with the real set-up but a package list, lock file and programs of its own. */
async function clone(t: TestContext, packages: string, lock?: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-setup-test-'));
  t.after(() => rm(folder, { recursive: true }));
  await mkdir(join(folder, 'tools'));
  await mkdir(join(folder, 'bin'));
  await mkdir(join(folder, 'tmp'));
  for (const file of ['tools/setup', 'tools/node', 'tools/installed.mjs']) {
    await copyFile(join(root, file), join(folder, file));
  }
  if (lock === undefined) await copyFile(join(root, 'package-lock.json'), join(folder, 'package-lock.json'));
  else await writeFile(join(folder, 'package-lock.json'), lock);
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'));
  await writeFile(join(folder, 'tools/debian-packages.txt'), packages);
  return folder;
}

async function program(folder: string, name: string, script: string): Promise<string> {
  await writeFile(join(folder, 'bin', name), `#!/bin/sh\n${script}\n`);
  await chmod(join(folder, 'bin', name), 0o755);
  return `${join(folder, 'bin')}:${process.env.PATH}`;
}

test('with nothing to do it says nothing, and writes nothing where others may have put links', async (t) => {
  const folder = await clone(t, 'coreutils # always there\n');
  setup(folder);
  const { status, output } = setup(folder);
  assert.equal(output, '');
  assert.equal(status, 0);
  assert.deepEqual(await readdir(join(folder, 'tmp')), []);
});

test('who is not root gets the exact line to run, and a failure', async (t) => {
  const folder = await clone(t, 'coreutils\nasterism-no-such-package # for this test\n');
  const path = await program(folder, 'id', 'echo 1000');
  const { status, output } = setup(folder, path);
  assert.equal(status, 1);
  assert.match(
    output,
    /^sudo apt-get update && sudo apt-get install -y --no-install-recommends asterism-no-such-package$/m,
  );
});

test('where apt fails, its last words are shown', async (t) => {
  const folder = await clone(t, 'asterism-no-such-package\n');
  await program(folder, 'id', 'echo 0');
  const path = await program(folder, 'apt-get', 'echo "E: this mirror is on fire"; exit 100');
  const { status, output } = setup(folder, path);
  assert.equal(status, 1);
  assert.match(output, /this mirror is on fire/);
});

test('packages that differ from the lock file are installed as locked, and a failure of npm is one here', async (t) => {
  const lock = JSON.stringify({
    packages: { 'node_modules/zod': { version: '0.0.1', integrity: 'sha512-x' } },
  });
  const folder = await clone(t, 'coreutils\n', lock);
  const path = await program(
    folder,
    'npm',
    'if [ "$1" = --version ]; then echo 9.2.0; else echo "ran npm $*"; exit 1; fi',
  );
  const { status, output } = setup(folder, path);
  assert.equal(status, 1);
  assert.match(output, /ran npm ci /);
  assert.match(output, /npm ci failed/);
});

test('an npm that is too old is named', async (t) => {
  const folder = await clone(
    t,
    'coreutils\n',
    JSON.stringify({ packages: { 'node_modules/zod': { version: '0' } } }),
  );
  const path = await program(folder, 'npm', 'echo 8.19.4');
  assert.match(setup(folder, path).output, /npm 8\.19\.4 is too old/);
});
