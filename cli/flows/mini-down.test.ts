import assert from 'node:assert/strict';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { generateMasterSecret } from '@asterism/config/master-secret';
import { WorkspaceError } from '@asterism/config/workspace';
import { AS_FOUND, measurements, world } from '../world.fixture.ts';
import { miniUp } from './mini.ts';
import { configure } from './mini-config.ts';
import { miniDown } from './mini-down.ts';
import { MARKER_FILE } from './mini-marker.ts';
import { terminateCluster } from './terminate-cluster.ts';

test('down leaves nothing, and the second time there is no mini cluster', async (t) => {
  const { folder, parts, context, done } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  assert.deepEqual(await miniDown(context(), parts.machines), []);
  assert.ok(done.includes('destroy'));
  await assert.rejects(readdir(folder), { code: 'ENOENT' });
  await assert.rejects(miniDown(context(), parts.machines), {
    code: 'ERR_NO_MINI',
    message: `there is no mini cluster in ${folder}`,
  });
});

test('down keeps what is not ours', async (t) => {
  const { folder, parts, context } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  await writeFile(join(folder, 'notes.txt'), 'mine');
  assert.deepEqual(await miniDown(context(), parts.machines), ['notes.txt']);
  assert.deepEqual(await readdir(folder), ['notes.txt']);
});

test('down keeps a configuration that was there before, also after several ups', async (t) => {
  const { parts, context } = await world(t);
  const { workspace, out } = context();
  const [version] = await parts.components.list();
  const shape = { version: version!, controlPlaneNodes: 1, workerNodes: 1 };
  await configure(workspace, out, shape, { reference: 'sha256:image', path: '', measurements });
  const text = await workspace.read('asterism-conf.yaml');
  await miniUp(context(), parts, AS_FOUND);
  await terminateCluster(context(), parts.machines);
  await miniUp(context(), parts, AS_FOUND);
  assert.deepEqual(await miniDown(context(), parts.machines), ['asterism-conf.yaml']);
  assert.equal(await workspace.read('asterism-conf.yaml'), text);
});

for (const [what, secret] of [
  ['another one', undefined],
  ['something that is no secret', 'mine'],
] as const) {
  test(`down keeps a master secret that was put in the place of its own: ${what}`, async (t) => {
    const { parts, context } = await world(t);
    await miniUp(context(), parts, AS_FOUND);
    const { workspace } = context();
    await workspace.remove('asterism-mastersecret.json');
    if (secret === undefined) await workspace.createMasterSecret(generateMasterSecret());
    else await workspace.create('asterism-mastersecret.json', secret);
    assert.deepEqual(await miniDown(context(), parts.machines), ['asterism-mastersecret.json']);
  });
}

test('a cluster that mini up did not make is refused, and nothing of it is removed', async (t) => {
  const { folder, parts, context, done } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  const { workspace } = context();
  const state = await workspace.requireState();
  const files = await readdir(folder);
  const refused = async () => {
    done.length = 0;
    const before = await readdir(folder);
    await assert.rejects(miniDown(context(), parts.machines), (error: WorkspaceError) => {
      assert.ok(error instanceof WorkspaceError);
      assert.equal(error.code, 'ERR_NOT_MINI');
      assert.match(error.message, /nothing was changed or removed.*asterism --workspace \S+ terminate/);
      return true;
    });
    assert.deepEqual(done, []);
    assert.deepEqual(await readdir(folder), before);
  };
  // Another cluster in the workspace of an earlier mini cluster.
  await workspace.writeState({ ...state, uid: '00000001' });
  await refused();
  await workspace.remove(MARKER_FILE);
  await refused();
  assert.deepEqual(
    await readdir(folder),
    files.filter((name) => name !== MARKER_FILE),
  );
});

test('a damaged marker leaves a way', async (t) => {
  const { parts, context, done } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  await context().workspace.create(MARKER_FILE, '{"schema": 1}', { overwrite: true });
  done.length = 0;
  const refused = /asterism-mini\.json: made: is missing.*asterism --workspace \S+ terminate/s;
  await assert.rejects(miniDown(context(), parts.machines), refused);
  await assert.rejects(miniUp(context(), parts, AS_FOUND), refused);
  assert.deepEqual(done, []);
});

test('files without cluster and marker are left alone', async (t) => {
  const { folder, parts, context } = await world(t);
  const names = ['asterism-admin.conf', 'asterism-conf.yaml', 'asterism-mastersecret.json'];
  for (const name of names) await writeFile(join(folder, name), 'mine');
  await assert.rejects(miniDown(context(), parts.machines), { code: 'ERR_NO_MINI' });
  assert.deepEqual((await readdir(folder)).sort(), names);
});

test('where there is none, the clusters of this machine are named, and how to remove them', async (t) => {
  const { folder, parts, context, clusters } = await world(t);
  clusters.push(
    { uid: '0a1b2c3d', name: 'lost', nodes: { running: 1, total: 2 }, workspace: '/gone' },
    { uid: '0a1b2c3e', name: undefined, nodes: { running: 0, total: 0 }, workspace: undefined },
  );
  await assert.rejects(miniDown(context(), parts.machines), (error: Error) => {
    assert.ok(error.message.startsWith(`there is no mini cluster in ${folder}. `));
    assert.match(error.message, /0a1b2c3d {2}lost {2}1 of 2 nodes run {2}workspace \/gone\n/);
    assert.match(error.message, /0a1b2c3e.*damaged/);
    assert.match(error.message, /asterism local remove UID/);
    return true;
  });
});

test('a cluster whose state file was lost is removed by what the marker says', async (t) => {
  const { parts, context, clusters } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  await context().workspace.remove('asterism-state.json');
  assert.deepEqual(await miniDown(context(), parts.machines), ['asterism-admin.conf']);
  assert.deepEqual(clusters, []);
});

test('a user who may not remove machines changes nothing', async (t) => {
  const { folder, parts, context, fate } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  const state = await context().workspace.requireState();
  const files = await readdir(folder);
  fate.permission = new Error('run it as root');
  await assert.rejects(miniDown(context(), parts.machines), /root/);
  assert.deepEqual(await context().workspace.requireState(), state);
  assert.deepEqual(await readdir(folder), files);
});
