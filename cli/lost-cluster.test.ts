// The real command on records of clusters that have no machines, beside whatever clusters this machine has.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { CLUSTERS, clusterFolder, noteWorkspace, writeCluster } from '@asterism/provider-local/cluster';

const ASTERISM = join(import.meta.dirname, '../asterism');
const NOBODY = 65_534;
const SKIP = process.getuid?.() === 0 ? false : 'needs root: records of clusters belong to it';

function asterism(args: readonly string[], user?: number) {
  const { status, stdout, stderr } = spawnSync(ASTERISM, args, {
    encoding: 'utf8',
    timeout: 60_000,
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(user === undefined ? {} : { uid: user, gid: user }),
  });
  return { status, stdout, stderr };
}

/** A record of a cluster, as `create` leaves it. */
async function record(t: TestContext): Promise<string> {
  const uid = randomBytes(4).toString('hex');
  t.after(async () => {
    await rm(clusterFolder(uid), { recursive: true, force: true });
    // Only empty ones go.
    for (const path of [CLUSTERS, dirname(CLUSTERS)]) await rmdir(path).catch(() => {});
  });
  await mkdir(CLUSTERS, { recursive: true, mode: 0o700 });
  await writeCluster({
    name: 'lost',
    uid,
    subnet: 254,
    imageFolder: '/nowhere',
    initSecretHash: '',
    stateDiskMiB: 64,
    stateDisksMapped: false,
    egress: false,
    nodes: [{ name: 'control-plane-0', role: 'ControlPlane', address: '10.77.254.11' }],
  });
  return uid;
}

interface Listed {
  readonly clusters: readonly { readonly uid: string }[];
}
const listed = (uid: string) =>
  (JSON.parse(asterism(['local', 'list', '-o', 'json']).stdout) as Listed).clusters.find(
    (cluster) => cluster.uid === uid,
  );

test('a cluster whose workspace is lost is listed and can be removed', { skip: SKIP }, async (t) => {
  const uid = await record(t);
  const none = { uid, name: 'lost', nodes: { running: 0, total: 1 }, workspace: null };
  assert.deepEqual(listed(uid), none);
  await noteWorkspace(uid, '/gone');
  assert.deepEqual(listed(uid), { ...none, workspace: '/gone' });
  const { status, stdout, stderr } = asterism(['local', 'remove', uid, '--yes']);
  assert.equal(status, 0, stderr);
  assert.match(stdout, new RegExp(`cluster ${uid} is removed`));
  assert.ok(!existsSync(clusterFolder(uid)));
});

test('a cluster whose record is damaged or gone is listed and can be removed', { skip: SKIP }, async (t) => {
  for (const text of ['{ cut o', '{}', undefined]) {
    const uid = await record(t);
    const path = join(clusterFolder(uid), 'cluster.json');
    if (text === undefined) await rm(path);
    else await writeFile(path, text);
    assert.deepEqual(listed(uid), { uid, name: null, nodes: { running: 0, total: 0 }, workspace: null });
    assert.equal(asterism(['local', 'remove', uid, '--yes']).status, 0);
    assert.ok(!existsSync(clusterFolder(uid)));
  }
});

test('a damaged record is told with the way out', { skip: SKIP }, async (t) => {
  const uid = await record(t);
  const workspace = await workspaceOf(t, uid);
  await writeFile(join(clusterFolder(uid), 'cluster.json'), '{}');
  const { status, stderr } = asterism(['--workspace', workspace, 'local', 'stop', 'control-plane-0']);
  assert.equal(status, 1);
  assert.match(stderr, new RegExp(`is damaged; remove the cluster with: asterism local remove ${uid}`));
});

test('who may not read the record is told to be root, and changes nothing', { skip: SKIP }, async (t) => {
  if (asterism(['version'], NOBODY).status !== 0) {
    t.skip('the user nobody may not read this clone');
    return;
  }
  const uid = await record(t);
  const workspace = await workspaceOf(t, uid);
  const before = await readFile(join(workspace, 'asterism-state.json'), 'utf8');
  for (const args of [
    ['status'],
    ['local', 'start', 'control-plane-0'],
    ['local', 'list'],
    ['local', 'remove', uid, '--yes'],
    ['terminate', '--yes'],
  ]) {
    const { status, stdout, stderr } = asterism(['--workspace', workspace, ...args], NOBODY);
    assert.equal(status, 1, stderr);
    assert.equal(stdout, '');
    assert.match(stderr, /run it as root/, args.join(' '));
  }
  assert.equal(await readFile(join(workspace, 'asterism-state.json'), 'utf8'), before);
});

/** A workspace that everybody may change, of a cluster that is created. */
async function workspaceOf(t: TestContext, uid: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-lost-'));
  t.after(() => rm(folder, { recursive: true }));
  const state = {
    schema: 1,
    name: 'lost',
    uid,
    provider: 'local',
    phase: 'created',
    kubernetesVersion: 'v1.37.2',
    image: 'sha256:aa',
    endpoint: '10.77.254.1',
    nodes: [{ name: 'control-plane-0', role: 'ControlPlane', address: '10.77.254.11' }],
    initSecret: 'c2VjcmV0',
  };
  const path = join(folder, 'asterism-state.json');
  await writeFile(path, JSON.stringify(state));
  await chmod(folder, 0o777);
  await chmod(path, 0o666);
  return folder;
}
