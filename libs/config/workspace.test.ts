import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { generateMasterSecret, parseMasterSecret, renderMasterSecret } from './master-secret.ts';
import type { ClusterState } from './state.ts';
import { Workspace } from './workspace.ts';

async function workspace(t: TestContext): Promise<Workspace> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-workspace-'));
  t.after(() => rm(folder, { recursive: true }));
  return new Workspace(folder);
}
const mode = async (path: string) => ((await stat(path)).mode & 0o777).toString(8);

const state: ClusterState = {
  schema: 1,
  name: 'mini',
  uid: '0a1b2c3d',
  provider: 'local',
  phase: 'creating',
  kubernetesVersion: 'v1.37.2',
  image: 'sha256:aa',
  endpoint: '',
  nodes: [],
  initSecret: 'c2VjcmV0',
};

test('a file that exists is not overwritten, and its content stays', async (t) => {
  const ws = await workspace(t);
  await ws.create('asterism-admin.conf', 'first');
  await assert.rejects(ws.create('asterism-admin.conf', 'second'), { code: 'ERR_EXISTS' });
  assert.equal(await ws.read('asterism-admin.conf'), 'first');
  await ws.create('asterism-admin.conf', 'third', { overwrite: true });
  assert.equal(await ws.read('asterism-admin.conf'), 'third');
  assert.deepEqual(await readdir(ws.folder), ['asterism-admin.conf']);
});

test('of twenty writers at once exactly one wins', async (t) => {
  const ws = await workspace(t);
  const results = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => ws.create('f', `${i}`)));
  assert.equal(results.filter((result) => result.status === 'fulfilled').length, 1);
  assert.deepEqual(await readdir(ws.folder), ['f']);
});

test('files have mode 0600 whatever the umask', async (t) => {
  const old = process.umask(0);
  t.after(() => process.umask(old));
  const ws = await workspace(t);
  await ws.createMasterSecret(generateMasterSecret());
  await ws.create('asterism-conf.yaml', 'x');
  await ws.writeState(state);
  await ws.writeState({ ...state, phase: 'created' });
  for (const name of await readdir(ws.folder)) assert.equal(await mode(ws.path(name)), '600', name);
  assert.equal((await ws.requireState()).phase, 'created');
});

test('a workspace without a cluster says what to do', async (t) => {
  const ws = await workspace(t);
  assert.equal(await ws.state(), undefined);
  await assert.rejects(ws.requireState(), /asterism create/);
  await assert.rejects(ws.config(), /asterism config generate local/);
});

test('a folder, a FIFO or a huge file in the place of a file is refused, not waited for', async (t) => {
  const ws = await workspace(t);
  execFileSync('mkdir', [ws.path('folder')]);
  execFileSync('mkfifo', [ws.path('fifo')]);
  await writeFile(ws.path('huge'), new Uint8Array(300_000));
  await assert.rejects(ws.read('folder'), { code: 'ERR_READ' });
  await assert.rejects(ws.read('fifo'), { code: 'ERR_READ' });
  await assert.rejects(ws.read('huge'), { code: 'ERR_CONFIG' });
});

test('a file that is no text is named', async (t) => {
  const ws = await workspace(t);
  await writeFile(ws.path('asterism-conf.yaml'), new Uint8Array([0x6e, 0xff, 0xfe]));
  await assert.rejects(ws.config(), { message: `${ws.path('asterism-conf.yaml')}: is not UTF-8 text` });
});

for (const [what, text] of [
  ['empty', ''],
  ['cut off', '{"schema": 1,'],
  ['of another form', '{"schema": 1}'],
  ['no text', new Uint8Array([0xff])],
] as const) {
  test(`where the state file is ${what}, the error says how to find and remove the cluster`, async (t) => {
    const ws = await workspace(t);
    await writeFile(ws.path('asterism-state.json'), text);
    await assert.rejects(ws.requireState(), (error: Error & { code: string }) => {
      assert.equal(error.code, 'ERR_STATE_DAMAGED');
      assert.ok(error.message.startsWith(`${ws.path('asterism-state.json')}: `));
      assert.match(error.message, /asterism local list.*asterism local remove UID/s);
      return true;
    });
  });
}

test('a write that fails names the file and the reason, not the temporary file that was tried', async (t) => {
  const ws = await workspace(t);
  await writeFile(ws.path('plain'), '');
  await mkdir(ws.path('folder/asterism-conf.yaml'), { recursive: true });
  for (const [folder, overwrite, reason] of [
    ['plain/below', false, 'not a directory'],
    ['plain', false, 'file already exists'],
    ['plain', true, 'file already exists'],
    ['folder', true, 'illegal operation on a directory'],
  ] as const) {
    const there = new Workspace(ws.path(folder));
    const path = there.path('asterism-conf.yaml');
    await assert.rejects(there.create('asterism-conf.yaml', 'x', { overwrite }), {
      code: 'ERR_WRITE',
      message: `${path} cannot be written: ${reason}`,
    });
  }
});

test('a master secret is generated with 32 random bytes each and read back', async (t) => {
  const ws = await workspace(t);
  const secret = generateMasterSecret();
  await ws.createMasterSecret(secret);
  assert.deepEqual(await ws.masterSecret(), secret);
  assert.equal(secret.key.length, 32);
  assert.equal(secret.salt.length, 32);
  assert.notDeepEqual(generateMasterSecret().key, secret.key);
  await assert.rejects(ws.createMasterSecret(generateMasterSecret()), { code: 'ERR_EXISTS' });
  assert.deepEqual(Object.keys(JSON.parse(await readFile(ws.path('asterism-mastersecret.json'), 'utf8'))), [
    'key',
    'salt',
  ]);
});

for (const [what, text] of [
  ['a short key', JSON.stringify({ key: 'AAAA', salt: 'A'.repeat(44) })],
  ['a short salt', JSON.stringify({ key: 'A'.repeat(44), salt: 'AAAA' })],
  ['a key that is no base64', JSON.stringify({ key: '!'.repeat(44), salt: 'A'.repeat(44) })],
  ['a missing salt', JSON.stringify({ key: 'A'.repeat(44) })],
  ['a third key', renderMasterSecret(generateMasterSecret()).replace('}', ',"x":1}')],
  ['no JSON', 'AAAA'],
] as const) {
  test(`a master secret with ${what} is refused without being quoted`, () => {
    assert.throws(
      () => parseMasterSecret(text, 'file'),
      (error: Error) => error.message.startsWith('file: ') && !error.message.includes('AAAA'),
    );
  });
}

test('one process at a time changes the cluster of a workspace; another one is told which', async (t) => {
  const ws = await workspace(t);
  const script = `
    import { Workspace } from ${JSON.stringify(join(import.meta.dirname, 'workspace.ts'))};
    await new Workspace(${JSON.stringify(ws.folder)}).exclusively(async () => {
      process.stdout.write('inside');
      await new Promise((resolve) => process.stdin.once('data', resolve));
    });`;
  const other = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(other.stdout, 'data');
  const refused = {
    code: 'ERR_LOCKED',
    message: new RegExp(`^process ${other.pid} is at work in ${ws.folder}; `),
  };
  await assert.rejects(
    ws.exclusively(async () => assert.fail('inside')),
    refused,
  );
  other.stdin.end('go on');
  await once(other, 'exit');
  assert.equal(
    await ws.exclusively(() => ws.exclusively(async () => 'a step of its own')),
    'a step of its own',
  );
  assert.deepEqual(await readdir(ws.folder), []);
});

test('of ten changes at once in one process one is let in', async (t) => {
  const ws = await workspace(t);
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const all = Array.from({ length: 10 }, () => ws.exclusively(() => held));
  const refused = all.map((one) => one.then(() => false).catch((error) => error.code === 'ERR_LOCKED'));
  // Nine are refused while one is inside.
  let count = 0;
  await new Promise<void>((resolve) => {
    for (const one of refused) void one.then(() => ++count === 9 && resolve());
  });
  release();
  assert.equal((await Promise.all(refused)).filter(Boolean).length, 9);
});

test('a folder that was made only to be locked is gone again, one with something in it is not', async (t) => {
  const { folder } = await workspace(t);
  const ws = new Workspace(join(folder, 'deep/er'));
  await assert.rejects(
    ws.exclusively(() => ws.requireState()),
    { code: 'ERR_NO_CLUSTER' },
  );
  assert.deepEqual(await readdir(folder), []);
  await ws.exclusively(() => ws.writeState(state));
  assert.equal((await ws.requireState()).uid, state.uid);
});
