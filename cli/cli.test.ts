// Runs the real command as a child process.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';

const ASTERISM = join(import.meta.dirname, '../asterism');

export function asterism(args: readonly string[], cwd: string) {
  const { status, stdout, stderr } = spawnSync(ASTERISM, args, {
    cwd,
    encoding: 'utf8',
    timeout: 60_000,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return { status, stdout, stderr };
}

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'asterism-cli-'));
  t.after(() => rm(path, { recursive: true }));
  return path;
}

for (const args of [
  [],
  ['bogus'],
  ['config'],
  ['config', 'generate', 'moon'],
  ['version', '--bogus'],
  ['version', '-o', 'xml'],
  ['version', 'surplus'],
  ['config', 'generate', 'local', '--name', 'Not_A_Name'],
  ['config', 'generate', 'local', '--name', 'a'.repeat(38)],
  ['config', 'generate', 'local', '-c', '0'],
  ['config', 'generate', 'local', '-w', '1e1'],
]) {
  test(`wrong usage exits with 1 and says why: asterism ${args.join(' ').slice(0, 60)}`, async (t) => {
    const cwd = await folder(t);
    const { status, stdout, stderr } = asterism(args, cwd);
    assert.equal(status, 1);
    assert.equal(stdout, '');
    assert.match(stderr, /Usage:|error:/);
    assert.doesNotMatch(stderr, /\n\s+at /, 'a stack without --debug');
  });
}

test('asking for help is no failure and names the exit codes', async (t) => {
  const { status, stdout } = asterism(['--help'], await folder(t));
  assert.equal(status, 0);
  assert.match(stdout, /2 evidence false, 3 policy not met, 4 not reachable/);
});

test('version answers in text and in JSON', async (t) => {
  const cwd = await folder(t);
  assert.match(asterism(['version'], cwd).stdout, /^asterism \d+\.\d+\.\d+ \(Node 24\./);
  const json = JSON.parse(asterism(['version', '-o', 'json'], cwd).stdout);
  assert.match(json.asterism, /^\d+\.\d+\.\d+$/);
});

test('config generate writes mode 0600 and never overwrites without --force', async (t) => {
  const cwd = await folder(t);
  assert.equal(asterism(['config', 'generate', 'local', '--name', 'one'], cwd).status, 0);
  const path = join(cwd, 'asterism-conf.yaml');
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  const again = asterism(['config', 'generate', 'local', '--name', 'two'], cwd);
  assert.equal(again.status, 1);
  assert.match(again.stderr, /exists and is not overwritten/);
  assert.match(await readFile(path, 'utf8'), /^name: one$/m);
  assert.equal(asterism(['config', 'generate', 'local', '--name', 'two', '--force'], cwd).status, 0);
  assert.match(await readFile(path, 'utf8'), /^name: two$/m);
});

test('config generate -f - prints and writes nothing', async (t) => {
  const cwd = await folder(t);
  const { status, stdout } = asterism(['config', 'generate', 'local', '-f', '-', '-c', '3', '-w', '2'], cwd);
  assert.equal(status, 0);
  assert.match(stdout, /controlPlaneNodes: 3\n\s+workerNodes: 2/);
  await assert.rejects(stat(join(cwd, 'asterism-conf.yaml')), { code: 'ENOENT' });
});

test('--workspace names another folder, before or after the command', async (t) => {
  const cwd = await folder(t);
  assert.equal(asterism(['--workspace', 'a', 'config', 'generate', 'local'], cwd).status, 0);
  assert.equal(asterism(['config', 'generate', 'local', '--workspace', 'b'], cwd).status, 0);
  await stat(join(cwd, 'a/asterism-conf.yaml'));
  await stat(join(cwd, 'b/asterism-conf.yaml'));
});

test('--debug shows the stack', async (t) => {
  const cwd = await folder(t);
  await writeFile(join(cwd, 'asterism-conf.yaml'), 'mine');
  const { stderr } = asterism(['config', 'generate', 'local', '--debug'], cwd);
  assert.match(stderr, /\n\s+at /);
});
