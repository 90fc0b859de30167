import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fromBase64 } from '@asterism/bytes/encoding';
import type { ClusterConfig } from '@asterism/config/cluster-config';
import { Workspace } from '@asterism/config/workspace';
import { compare } from 'bcryptjs';
import type { Machines, MachinesSpec } from '../machines.ts';
import { Progress } from '../progress.ts';
import { createCluster } from './create-cluster.ts';
import { terminateCluster } from './terminate-cluster.ts';

const config: ClusterConfig = {
  version: 'v1',
  name: 'test',
  kubernetesVersion: 'v1.37.2',
  image: 'sha256:aa',
  provider: { local: { controlPlaneNodes: 1, workerNodes: 0, stateDiskMiB: 64, egress: false } },
  attestation: { qemuVtpm: { acceptUnauthenticatedTpm: true, measurements: {} } },
  kms: { type: 'cluster' },
};
const options = { signal: new AbortController().signal, onDetail: () => {} };

const silent = { isTTY: false, write: () => true } as unknown as NodeJS.WriteStream;
const context = (ws: Workspace) => ({
  workspace: ws,
  progress: new Progress(silent),
  signal: options.signal,
});

async function workspace(t: TestContext): Promise<Workspace> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-create-'));
  t.after(() => rm(folder, { recursive: true }));
  return new Workspace(folder);
}

/** Machines in memory that note what they were asked. */
function fakeMachines(fail: { create?: Error; destroy?: Error; permission?: Error } = {}) {
  const made = new Map<string, MachinesSpec>();
  const machines: Machines = {
    folder: '/',
    checkPermission: () => {
      if (fail.permission) throw fail.permission;
    },
    list: async () => [],
    create: async (spec) => {
      made.set(spec.uid, spec);
      if (fail.create) throw fail.create;
      return {
        endpoint: '10.77.1.1',
        nodes: [{ name: 'cp-0', role: 'ControlPlane', address: '10.77.1.10' }],
      };
    },
    destroy: async ({ uid }) => {
      if (fail.destroy) throw fail.destroy;
      made.delete(uid);
    },
    status: async () => [],
    start: async () => {},
    stop: async () => {},
    exec: async () => 0,
    logs: async () => {},
  };
  return { machines, made };
}

test('the state is on the disk before the first machine is', async (t) => {
  const ws = await workspace(t);
  const { machines } = fakeMachines();
  await createCluster(
    ws,
    config,
    {
      ...machines,
      create: async (spec, given) => {
        const state = await ws.requireState();
        assert.equal(state.phase, 'creating');
        assert.equal(state.uid, spec.uid);
        return machines.create(spec, given);
      },
    },
    options,
  );
  assert.equal((await ws.requireState()).phase, 'created');
});

test('the machines get a hash of the init secret and never the secret', async (t) => {
  const ws = await workspace(t);
  const { machines, made } = fakeMachines();
  const state = await createCluster(ws, config, machines, options);
  const spec = made.get(state.uid);
  assert.ok(spec);
  const secret = Buffer.from(fromBase64(state.initSecret)).toString();
  assert.equal(secret.length, 40);
  assert.ok(await compare(secret, spec.initSecretHash));
  assert.ok(!JSON.stringify(spec).includes(secret));
});

test('a failure removes what was made, and leaves a workspace that can be used again', async (t) => {
  const ws = await workspace(t);
  const { machines, made } = fakeMachines({ create: new Error('no veth') });
  await assert.rejects(createCluster(ws, config, machines, options), /no veth/);
  assert.equal(made.size, 0);
  assert.deepEqual(await readdir(ws.folder), []);
});

test('where removing fails too, the state stays so that terminate can try again', async (t) => {
  const ws = await workspace(t);
  const { machines, made } = fakeMachines({ create: new Error('no veth'), destroy: new Error('busy') });
  await assert.rejects(createCluster(ws, config, machines, options), /asterism terminate/);
  assert.equal((await ws.requireState()).phase, 'creating');
  const second = fakeMachines();
  await assert.rejects(createCluster(ws, config, second.machines, options), { code: 'ERR_CLUSTER_EXISTS' });
  await terminateCluster(context(ws), {
    ...second.machines,
    destroy: async ({ uid }) => void made.delete(uid),
  });
  assert.equal(made.size, 0);
});

test('a second create in one workspace is refused before anything is made', async (t) => {
  const ws = await workspace(t);
  const { machines, made } = fakeMachines();
  const state = await createCluster(ws, config, machines, options);
  await assert.rejects(createCluster(ws, config, machines, options), { code: 'ERR_CLUSTER_EXISTS' });
  assert.deepEqual([...made.keys()], [state.uid]);
});

test('terminate keeps configuration and master secret, and removes the rest', async (t) => {
  const ws = await workspace(t);
  const { machines, made } = fakeMachines();
  const state = await createCluster(ws, config, machines, options);
  await ws.writeState({ ...state, phase: 'initialized', clusterId: 'ab'.repeat(32) });
  for (const name of ['asterism-conf.yaml', 'asterism-mastersecret.json', 'asterism-admin.conf']) {
    await writeFile(ws.path(name), name);
  }
  await terminateCluster(context(ws), machines);
  assert.equal(made.size, 0);
  assert.deepEqual((await readdir(ws.folder)).sort(), ['asterism-conf.yaml', 'asterism-mastersecret.json']);
  assert.equal(await readFile(ws.path('asterism-mastersecret.json'), 'utf8'), 'asterism-mastersecret.json');
});

test('terminate of a cluster that was never initialised keeps a kubeconfig, which is of something else', async (t) => {
  const ws = await workspace(t);
  const { machines } = fakeMachines();
  await createCluster(ws, config, machines, options);
  await ws.create('asterism-admin.conf', 'mine');
  await terminateCluster(context(ws), machines);
  assert.deepEqual(await readdir(ws.folder), ['asterism-admin.conf']);
});

test('who may not make or remove machines changes nothing', async (t) => {
  const ws = await workspace(t);
  const { machines } = fakeMachines();
  const barred = fakeMachines({ permission: new Error('run it as root') });
  await assert.rejects(createCluster(ws, config, barred.machines, options), /root/);
  assert.deepEqual(await readdir(ws.folder), []);
  const state = await createCluster(ws, config, machines, options);
  await assert.rejects(terminateCluster(context(ws), barred.machines), /root/);
  assert.deepEqual(await ws.requireState(), state);
});

test('the machines are told which workspace they belong to, and a caller may choose the uid', async (t) => {
  const ws = await workspace(t);
  const { machines, made } = fakeMachines();
  const state = await createCluster(ws, config, machines, { ...options, uid: '0a1b2c3d' });
  assert.equal(state.uid, '0a1b2c3d');
  assert.equal(made.get('0a1b2c3d')?.workspace, ws.folder);
});

test('a terminate that fails can be repeated', async (t) => {
  const ws = await workspace(t);
  const { machines } = fakeMachines();
  await createCluster(ws, config, machines, options);
  const failing = fakeMachines({ destroy: new Error('busy') });
  await assert.rejects(terminateCluster(context(ws), failing.machines), /busy/);
  assert.equal((await ws.requireState()).phase, 'terminating');
  await terminateCluster(context(ws), machines);
  await assert.rejects(terminateCluster(context(ws), machines), { code: 'ERR_NO_CLUSTER' });
});

/** Another process that makes a cluster in a workspace and is not through until it is told. */
async function otherCreate(ws: Workspace) {
  const from = (file: string) => JSON.stringify(join(import.meta.dirname, file));
  const script = `
    import { Workspace } from '@asterism/config/workspace';
    import { createCluster } from ${from('create-cluster.ts')};
    const machines = {
      checkPermission() {},
      destroy: async () => {},
      create: async () => {
        process.stdout.write('creating');
        const fate = await new Promise((resolve) => process.stdin.once('data', (data) => resolve(String(data))));
        if (fate === 'fail') throw new Error('as told');
        return { endpoint: '10.77.1.1', nodes: [] };
      },
    };
    const options = { signal: new AbortController().signal, onDetail() {} };
    await createCluster(new Workspace(${JSON.stringify(ws.folder)}), ${JSON.stringify(config)}, machines, options);`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: import.meta.dirname,
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const ended = once(child, 'exit');
  await once(child.stdout, 'data');
  const end = async (fate: 'succeed' | 'fail') => {
    child.stdin.end(fate);
    return (await ended)[0] as number;
  };
  const refused = { code: 'ERR_LOCKED', message: new RegExp(`^process ${child.pid} is at work in `) };
  return { end, refused };
}

test('while one process makes a cluster, another one can neither make nor terminate one there', async (t) => {
  const ws = await workspace(t);
  const other = await otherCreate(ws);
  const { uid } = await ws.requireState();
  const { machines, made } = fakeMachines();
  await assert.rejects(createCluster(ws, config, machines, options), other.refused);
  await assert.rejects(terminateCluster(context(ws), machines), other.refused);
  assert.equal(made.size, 0);
  assert.equal(await other.end('succeed'), 0);
  const state = await ws.requireState();
  assert.deepEqual([state.uid, state.phase], [uid, 'created']);
  await assert.rejects(createCluster(ws, config, machines, options), { code: 'ERR_CLUSTER_EXISTS' });
});

test('one that fails undoes its own cluster, and no other one that the workspace has by then', async (t) => {
  const ws = await workspace(t);
  const other = await otherCreate(ws);
  const mine = { ...(await ws.requireState()), uid: '01234567' };
  await ws.writeState(mine);
  assert.equal(await other.end('fail'), 1);
  assert.deepEqual(await ws.requireState(), mine);
});
