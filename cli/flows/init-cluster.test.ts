// Init from a workspace to a node over real aTLS on loopback; only the evidence is made up.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { clusterIdPcr } from '@asterism/attestation/cluster-id';
import type { Verifier } from '@asterism/attestation/types';
import { fromUtf8, toBase64, toHex, toUtf8 } from '@asterism/bytes/encoding';
import type { ClusterConfig } from '@asterism/config/cluster-config';
import { generateMasterSecret, MASTER_SECRET_FILE, renderMasterSecret } from '@asterism/config/master-secret';
import type { ClusterState } from '@asterism/config/state';
import { KUBECONFIG_FILE, Workspace } from '@asterism/config/workspace';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API, type InitRequest } from '@asterism/rpc/gen/init_pb';
import { StatusError } from '@asterism/rpc/status';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { BOOTSTRAPPER_PORT, type InitParts, initCluster } from './init-cluster.ts';

const config: ClusterConfig = {
  version: 'v1',
  name: 'test',
  kubernetesVersion: 'v1.37.2',
  image: 'sha256:aa',
  provider: { local: { controlPlaneNodes: 1, workerNodes: 0, stateDiskMiB: 64 } },
  attestation: {
    qemuVtpm: {
      acceptUnauthenticatedTpm: true,
      measurements: { 4: { expected: '11'.repeat(32), warnOnly: false } },
    },
  },
  kms: { type: 'cluster' },
};

/** Not the real derivation, but as sensitive to both inputs. */
const clusterIdOf: InitParts['clusterIdOf'] = async (secret, salt) =>
  new Uint8Array(createHash('sha256').update(secret.key).update(secret.salt).update(salt).digest());

function parts(pcr15: () => Promise<Uint8Array> = async () => new Uint8Array(32)): InitParts {
  const fake = fakeVerifier();
  const verifier: Verifier = {
    ...fake,
    verify: async (...args) => ({ ...(await fake.verify(...args)), pcrs: new Map([[15, await pcr15()]]) }),
  };
  return {
    clusterIdOf,
    kmsUri: (secret) => `kms://${toBase64(secret.key)}`,
    storageUri: () => 'storage://no-store',
    verifier: () => verifier,
    components: async () => [
      { url: 'http://10.77.1.1/x', hash: `sha256:${'0'.repeat(64)}`, installPath: '/x' },
    ],
  };
}

let address = 0;

/** A workspace with created machines, and a bootstrapper at its endpoint. */
async function scene(t: TestContext, answer?: (request: InitRequest) => Promise<Uint8Array>) {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-init-'));
  t.after(() => rm(folder, { recursive: true }));
  const workspace = new Workspace(folder);
  const endpoint = `127.77.${process.pid % 250}.${++address}`;
  const state: ClusterState = {
    schema: 1,
    name: 'test',
    uid: '00000001',
    provider: 'local',
    phase: 'created',
    kubernetesVersion: 'v1.37.2',
    image: 'sha256:aa',
    endpoint,
    nodes: [{ name: 'cp-0', role: 'ControlPlane', address: endpoint }],
    initSecret: toBase64(toUtf8('the init secret')),
  };
  await workspace.writeState(state);
  const requests: InitRequest[] = [];
  const right = async (request: InitRequest) => {
    const secret = await workspace.masterSecret();
    assert.ok(secret);
    return clusterIdOf(secret, request.measurementSalt);
  };
  const server = new AtlsGrpcServer({ issuer: fakeIssuer(), handshakeTimeoutMs: 5000, maxPending: 10 });
  server.addService(API, {
    init: async () => ({}),
    confirmInit: async () => ({}),
    initStream: async function* (request) {
      requests.push(request);
      const clusterId = await (answer ?? right)(request);
      yield { kind: { case: 'done', value: { clusterId, kubeconfig: toUtf8('apiVersion: v1') } } } as const;
    },
  });
  await server.listen(BOOTSTRAPPER_PORT, endpoint);
  t.after(() => server.stop(0));
  const input = {
    workspace,
    config,
    masterSecretFile: undefined as string | undefined,
    patienceMs: 500,
    pauseMs: 50,
    signal: new AbortController().signal,
    onPeer: () => {},
    onProgress: () => {},
    onLog: () => {},
    onRetry: () => {},
  };
  return { workspace, state, requests, input };
}

test('salt, master secret and cluster id are saved before the first call', async (t) => {
  const { workspace, input, requests } = await scene(t, async (request) => {
    const saved = await workspace.requireState();
    const secret = await workspace.masterSecret();
    assert.ok(secret && saved.measurementSalt);
    assert.equal(saved.phase, 'initializing');
    assert.equal(toBase64(request.measurementSalt), saved.measurementSalt);
    const id = await clusterIdOf(secret, request.measurementSalt);
    assert.equal(saved.clusterId, toHex(id));
    return id;
  });
  const done = await initCluster(input, parts());
  assert.equal(done.phase, 'initialized');
  assert.equal(await workspace.read(KUBECONFIG_FILE), 'apiVersion: v1');
  assert.equal(fromUtf8(requests[0]!.initSecret), 'the init secret');
  assert.deepEqual(JSON.parse(fromUtf8(requests[0]!.joinMeasurements)), {
    4: { expected: '11'.repeat(32), warnOnly: false },
    15: { expected: '00'.repeat(32), warnOnly: false },
  });
});

test('an init that failed goes on with the same salt, secret and id, at a node that is marked already', async (t) => {
  let calls = 0;
  let id = new Uint8Array();
  const { workspace, input, requests } = await scene(t, async (request) => {
    const secret = await workspace.masterSecret();
    assert.ok(secret);
    id = new Uint8Array(await clusterIdOf(secret, request.measurementSalt));
    if (++calls === 1) throw new StatusError('INTERNAL', 'ERR_PHASE', 'kubeadm failed');
    return id;
  });
  await assert.rejects(initCluster(input, parts()), { code: 'ERR_PHASE' });
  const done = await initCluster(
    input,
    parts(() => clusterIdPcr(id)),
  );
  assert.equal(done.clusterId, toHex(id));
  assert.deepEqual(requests[0]!.measurementSalt, requests[1]!.measurementSalt);
  assert.equal(requests[0]!.kmsUri, requests[1]!.kmsUri);
});

test('an initialised node of another cluster gets no secret', async (t) => {
  const { input, requests } = await scene(t);
  await assert.rejects(
    initCluster(
      input,
      parts(() => clusterIdPcr(new Uint8Array(32))),
    ),
    {
      code: 'ERR_FOREIGN_CLUSTER',
    },
  );
  assert.equal(requests.length, 0);
});

test('a node that answers with another cluster id is not believed', async (t) => {
  const { workspace, input } = await scene(t, async () => new Uint8Array(32).fill(9));
  await assert.rejects(initCluster(input, parts()), { code: 'ERR_CLUSTER_ID', name: 'VerificationError' });
  assert.equal(await workspace.read(KUBECONFIG_FILE), undefined);
  assert.equal((await workspace.requireState()).phase, 'initializing');
});

test('the master secret of an earlier cluster is not taken by accident, but on purpose', async (t) => {
  const { workspace, input, requests } = await scene(t);
  await workspace.createMasterSecret(generateMasterSecret());
  const hint = `--master-secret ${workspace.path(MASTER_SECRET_FILE)}, or move it away`;
  await assert.rejects(initCluster(input, parts()), (error: Error & { code: string }) => {
    assert.ok(error.message.includes(hint), error.message);
    return error.code === 'ERR_EXISTS';
  });
  assert.equal(requests.length, 0);
  await initCluster({ ...input, masterSecretFile: workspace.path(MASTER_SECRET_FILE) }, parts());
});

for (const [what, text] of [
  ['is not there', undefined],
  ['is no secret', 'mine'],
] as const) {
  test(`a given master secret that ${what} leaves no half step that takes an earlier one next time`, async (t) => {
    const { workspace, input, state, requests } = await scene(t);
    await workspace.createMasterSecret(generateMasterSecret());
    const masterSecretFile = workspace.path('given.json');
    if (text !== undefined) await writeFile(masterSecretFile, text);
    await assert.rejects(initCluster({ ...input, masterSecretFile }, parts()), /given\.json/);
    assert.deepEqual(await workspace.requireState(), state);
    await assert.rejects(initCluster(input, parts()), { code: 'ERR_EXISTS' });
    assert.equal(requests.length, 0);
  });
}

test('an init with a given master secret that is killed does not go on with an earlier one', async (t) => {
  const { workspace, input, requests } = await scene(t);
  await workspace.createMasterSecret(generateMasterSecret());
  const masterSecretFile = workspace.path('given.json');
  await writeFile(masterSecretFile, renderMasterSecret(generateMasterSecret()));
  const killed = { ...parts(), clusterIdOf: () => Promise.reject(new Error('killed')) };
  await assert.rejects(initCluster({ ...input, masterSecretFile }, killed), /killed/);
  await assert.rejects(initCluster(input, parts()), { code: 'ERR_EXISTS' });
  assert.equal(requests.length, 0);
});

test('going on with another master secret is refused before a call', async (t) => {
  let fail = true;
  const { workspace, input, requests } = await scene(t, async (request) => {
    if (fail) throw new StatusError('INTERNAL', 'ERR_PHASE', 'kubeadm failed');
    return clusterIdOf((await workspace.masterSecret())!, request.measurementSalt);
  });
  await assert.rejects(initCluster(input, parts()), { code: 'ERR_PHASE' });
  fail = false;
  const other = workspace.path('other.json');
  await writeFile(other, renderMasterSecret(generateMasterSecret()));
  await assert.rejects(initCluster({ ...input, masterSecretFile: other }, parts()), {
    code: 'ERR_OTHER_MASTER_SECRET',
  });
  await rm(workspace.path(MASTER_SECRET_FILE));
  await assert.rejects(initCluster(input, parts()), { code: 'ERR_NO_MASTER_SECRET' });
  assert.equal(requests.length, 1);
});

test('a command that was killed between saving the salt and the secret goes on', async (t) => {
  const { workspace, input, state, requests } = await scene(t);
  const measurementSalt = toBase64(new Uint8Array(32).fill(5));
  await workspace.writeState({ ...state, measurementSalt });
  await initCluster(input, parts());
  assert.equal(toBase64(requests[0]!.measurementSalt), measurementSalt);
});

test('a kubeconfig of something else is not overwritten', async (t) => {
  const { workspace, input, requests } = await scene(t);
  await workspace.create(KUBECONFIG_FILE, 'mine');
  await assert.rejects(initCluster(input, parts()), { code: 'ERR_EXISTS' });
  assert.equal(await workspace.read(KUBECONFIG_FILE), 'mine');
  assert.equal(requests.length, 0);
});

test('a cluster that is initialised is not called again', async (t) => {
  const { input, requests } = await scene(t);
  await initCluster(input, parts());
  await initCluster(input, parts());
  assert.equal(requests.length, 1);
});

for (const phase of ['creating', 'terminating'] as const) {
  test(`a half-made cluster (${phase}) is refused`, async (t) => {
    const { workspace, input, state, requests } = await scene(t);
    await workspace.writeState({ ...state, phase });
    await assert.rejects(initCluster(input, parts()), /asterism terminate/);
    assert.equal(requests.length, 0);
  });
}
