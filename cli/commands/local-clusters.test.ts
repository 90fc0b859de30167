import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { command } from '../command.fixture.ts';
import { miniUp } from '../flows/mini.ts';
import { AS_FOUND, world } from '../world.fixture.ts';

test('list tells every cluster of the machine, damaged ones too', async (t) => {
  const { folder, parts, context, clusters } = await world(t);
  assert.match((await command(parts, ['local', 'list'])).stdout, /no cluster/);
  const { state } = await miniUp(context(), parts, AS_FOUND);
  clusters.push({ uid: '0a1b2c3e', name: undefined, nodes: { running: 0, total: 0 }, workspace: undefined });
  const { stdout } = await command(parts, ['local', 'list']);
  assert.match(stdout, new RegExp(`${state.uid} +mini +2 of 2 nodes run +workspace ${folder}\n`));
  assert.match(stdout, /0a1b2c3e +\(its record is damaged\).*workspace not known\n/);
  const json = JSON.parse((await command(parts, ['local', 'list', '-o', 'json'])).stdout);
  assert.deepEqual(json.clusters, [
    { uid: state.uid, name: 'mini', nodes: { running: 2, total: 2 }, workspace: folder },
    { uid: '0a1b2c3e', name: null, nodes: { running: 0, total: 0 }, workspace: null },
  ]);
});

test('remove takes a cluster whose workspace is lost, and asks first', async (t) => {
  const { folder, parts, context, clusters, done } = await world(t);
  const { state } = await miniUp(context(), parts, AS_FOUND);
  const other = ['--workspace', join(folder, 'other')];
  await assert.rejects(command(parts, [...other, 'local', 'remove', state.uid]), { code: 'ERR_CONFIRM' });
  assert.equal(clusters.length, 1);
  const { stdout, stderr } = await command(parts, [...other, 'local', 'remove', state.uid, '--yes']);
  assert.ok(done.includes('destroy'));
  assert.deepEqual(clusters, []);
  assert.match(stdout, /is removed/);
  assert.ok(stderr.includes(`asterism --workspace ${folder} terminate`), stderr);
});

test('remove of what is not there names what is', async (t) => {
  const { parts, context, done } = await world(t);
  const { state } = await miniUp(context(), parts, AS_FOUND);
  for (const uid of ['00000000', '..', 'mini']) {
    await assert.rejects(command(parts, ['local', 'remove', uid, '--yes']), {
      code: 'ERR_NO_CLUSTER',
      message: `there is no cluster ${uid} on this machine; there are: ${state.uid}`,
    });
  }
  assert.ok(!done.includes('destroy'));
});

test('remove by who may not is refused before it asks', async (t) => {
  const { parts, fate } = await world(t);
  fate.permission = new Error('run it as root');
  await assert.rejects(command(parts, ['local', 'remove', '00000000']), /root/);
});
