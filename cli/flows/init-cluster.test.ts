// Init from a workspace to a node over real aTLS on loopback; only the evidence is made up.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
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
import { PolicyError } from '@asterism/errors/errors';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API, type ConfirmInitRequest, type InitRequest } from '@asterism/rpc/gen/init_pb';
import { StatusError } from '@asterism/rpc/status';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { BOOTSTRAPPER_PORT, type InitParts, initCluster } from './init-cluster.ts';
import { externalKeyHome } from './key-home.ts';

const config: ClusterConfig = {
  version: 'v1',
  name: 'test',
  kubernetesVersion: 'v1.37.2',
  image: 'sha256:aa',
  provider: { local: { controlPlaneNodes: 1, workerNodes: 0, stateDiskMiB: 64, egress: false } },
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

const clusterIdOfMeasurementSecret: InitParts['clusterIdOfMeasurementSecret'] = (secret, salt) =>
  new Uint8Array(createHash('sha256').update(secret).update(salt).digest());

const external: ClusterConfig = {
  ...config,
  kms: {
    type: 'vault',
    parameters: { address: 'https://bao.internal:8200', keyName: 'asterism' },
    credentials: { token: { env: 'BAO_TOKEN' } },
    v26Blobs: false,
    store: { type: 'kubernetes', parameters: {}, credentials: {} },
  },
};

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
    clusterIdOfMeasurementSecret,
    credentials: async () => ({ kms: { token: 'hunter22' }, storage: {} }),
    verifier: () => verifier,
    memberVerifier: async () => fakeVerifier(),
    components: async () => [
      { url: 'http://10.77.1.1/x', hash: `sha256:${'0'.repeat(64)}`, installPath: '/x' },
    ],
  };
}

let address = 0;

/** A workspace with created machines, and a bootstrapper at its endpoint. */
async function scene(
  t: TestContext,
  answer?: (request: InitRequest) => Promise<Uint8Array>,
  onConfirm: (request: ConfirmInitRequest) => Promise<void> = async () => {},
) {
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
  const confirmations: ConfirmInitRequest[] = [];
  const right = async (request: InitRequest) => {
    const secret = await workspace.masterSecret();
    assert.ok(secret);
    return clusterIdOf(secret, request.measurementSalt);
  };
  const server = new AtlsGrpcServer({ issuer: fakeIssuer(), handshakeTimeoutMs: 5000, maxPending: 10 });
  server.addService(API, {
    init: async () => ({}),
    async confirmInit(request) {
      confirmations.push(request);
      await onConfirm(request);
      return {};
    },
    initStream: async function* (request) {
      requests.push(request);
      const clusterId = await (answer ?? right)(request);
      yield { kind: { case: 'done', value: { clusterId, kubeconfig: toUtf8('apiVersion: v1') } } } as const;
    },
  });
  await server.listen(BOOTSTRAPPER_PORT, endpoint);
  t.after(() => server.stop(0));
  const unconfirmed: string[] = [];
  const input = {
    workspace,
    config,
    masterSecretFile: undefined as string | undefined,
    patienceMs: 500,
    confirmPatienceMs: 300,
    pauseMs: 50,
    signal: new AbortController().signal,
    onPeer: () => {},
    onProgress: () => {},
    onLog: () => {},
    onRetry: () => {},
    onUnconfirmed: (why: string) => void unconfirmed.push(why),
  };
  return { workspace, state, requests, confirmations, unconfirmed, input, server };
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

/** A workspace whose command is killed at its first write of a kind. */
class KilledAt extends Workspace {
  readonly #doomed: (what: string) => boolean;

  constructor(folder: string, doomed: (what: string) => boolean) {
    super(folder);
    this.#doomed = doomed;
  }
  override async create(...args: Parameters<Workspace['create']>): Promise<void> {
    if (this.#doomed(args[0])) throw new Error('killed');
    await super.create(...args);
  }
  override async writeState(state: ClusterState): Promise<void> {
    if (this.#doomed(`${state.phase}${state.initUnconfirmed ? ' unconfirmed' : ''}`))
      throw new Error('killed');
    await super.writeState(state);
  }
}

test('the node is told that the kubeconfig is here when it is, and when the state says so', async (t) => {
  const { workspace, input, confirmations, requests } = await scene(t, undefined, async () => {
    assert.equal(await workspace.read(KUBECONFIG_FILE), 'apiVersion: v1');
    const { phase, initUnconfirmed } = await workspace.requireState();
    assert.deepEqual([phase, initUnconfirmed], ['initialized', true]);
  });
  const done = await initCluster(input, parts());
  assert.equal('initUnconfirmed' in done, false);
  assert.deepEqual(await workspace.requireState(), done);
  assert.equal(confirmations.length, 1);
  assert.equal(fromUtf8(confirmations[0]!.initSecret), 'the init secret');
  assert.equal(toHex(confirmations[0]!.clusterId), done.clusterId);
  await initCluster(input, parts());
  assert.deepEqual([requests.length, confirmations.length], [1, 1]);
});

for (const [what, where, calls] of [
  ['after the answer came and before it is on the disk', KUBECONFIG_FILE, 2],
  ['after the kubeconfig is on the disk and before the state says so', 'initialized unconfirmed', 1],
  ['after the confirmation and before the state says so', 'initialized', 1],
] as const) {
  test(`a command that is killed ${what} is run again and succeeds`, async (t) => {
    const { workspace, input, requests, confirmations } = await scene(t);
    const killed = new KilledAt(workspace.folder, (now) => now === where);
    await assert.rejects(initCluster({ ...input, workspace: killed }, parts()), /killed/);
    assert.equal(confirmations.length, where === 'initialized' ? 1 : 0);
    const done = await initCluster(input, parts());
    assert.deepEqual([done.phase, done.initUnconfirmed], ['initialized', undefined]);
    assert.equal(await workspace.read(KUBECONFIG_FILE), 'apiVersion: v1');
    assert.equal(requests.length, calls);
    assert.equal(confirmations.length, where === 'initialized' ? 2 : 1);
  });
}

test('a confirmation whose answer is lost leaves a working cluster; init again needs no node', async (t) => {
  const { workspace, input, requests, unconfirmed, server } = await scene(t, undefined, () => server.stop(0));
  const first = await initCluster(input, parts());
  assert.deepEqual([first.phase, first.initUnconfirmed], ['initialized', true]);
  assert.equal(unconfirmed.length, 1);
  assert.equal(await workspace.read(KUBECONFIG_FILE), 'apiVersion: v1');
  const again = await initCluster(input, parts());
  assert.deepEqual(await workspace.requireState(), again);
  assert.equal(again.initUnconfirmed, undefined);
  assert.equal(requests.length, 1);
});

test('a kubeconfig that is lost before the node was told is asked for again', async (t) => {
  let fail = true;
  const { workspace, input, requests } = await scene(t, undefined, async () => {
    if (fail) throw new StatusError('RESOURCE_EXHAUSTED', 'ERR_INIT_SECRET_THROTTLED', 'later');
  });
  assert.equal((await initCluster(input, parts())).initUnconfirmed, true);
  await workspace.remove(KUBECONFIG_FILE);
  fail = false;
  const done = await initCluster(input, parts());
  assert.deepEqual([done.phase, done.initUnconfirmed], ['initialized', undefined]);
  assert.equal(await workspace.read(KUBECONFIG_FILE), 'apiVersion: v1');
  assert.equal(requests.length, 2);
});

test('only a member of the cluster is sent a confirmation', async (t) => {
  const { workspace, input, confirmations } = await scene(t);
  const refusing: Verifier = {
    ...fakeVerifier(),
    verify: async () => {
      throw new PolicyError('ERR_MEASUREMENTS', 'PCR 15 differs');
    },
  };
  const strict = { ...parts(), memberVerifier: async () => refusing };
  await assert.rejects(initCluster(input, strict), { code: 'ERR_MEASUREMENTS' });
  assert.equal(confirmations.length, 0);
  assert.equal((await workspace.requireState()).initUnconfirmed, true);
});

test('a node that takes this command itself for another caller, after a cut, is asked again; any other is not', async (t) => {
  const answers = ['cut', 'busy'];
  const { workspace, input, requests } = await scene(t, async (request) => {
    const next = answers.shift();
    if (next === 'cut') throw new StatusError('UNAVAILABLE', 'ERR_X', 'the connection broke');
    if (next === 'busy')
      throw new StatusError('FAILED_PRECONDITION', 'ERR_NODE_BUSY', 'its caller is connected');
    return clusterIdOf((await workspace.masterSecret())!, request.measurementSalt);
  });
  await initCluster({ ...input, patienceMs: 5000 }, parts());
  assert.equal(requests.length, 3);
  const other = await scene(t, async () => {
    throw new StatusError('FAILED_PRECONDITION', 'ERR_NODE_BUSY', 'its caller is connected');
  });
  await assert.rejects(initCluster(other.input, parts()), { code: 'ERR_NODE_BUSY' });
  assert.equal(other.requests.length, 1);
});

const idOf = async ({ measurementSecret, measurementSalt }: InitRequest) =>
  clusterIdOfMeasurementSecret(measurementSecret, measurementSalt);

test('with an external KMS there is no master secret; what the id hangs on is saved before the first call', async (t) => {
  const { workspace, input, requests } = await scene(t, async (request) => {
    const saved = await workspace.requireState();
    assert.equal(saved.measurementSecret, toBase64(request.measurementSecret));
    assert.equal(saved.clusterId, toHex(await idOf(request)));
    return idOf(request);
  });
  const done = await initCluster({ ...input, config: external }, parts());
  const [request] = requests;
  assert.equal(
    request!.kmsUri,
    `kms://vault?address=https%3A%2F%2Fbao.internal%3A8200&keyName=asterism&clusterID=${done.clusterId}`,
  );
  assert.equal(request!.storageUri, 'storage://kubernetes');
  assert.deepEqual(JSON.parse(fromUtf8(request!.kmsCredentials)), {
    kms: { token: 'hunter22' },
    storage: {},
  });
  assert.equal(await workspace.masterSecret(), undefined);
  assert.equal(done.phase, 'initialized');
  assert.deepEqual(done.keyHome, {
    kmsUri: request!.kmsUri,
    storageUri: request!.storageUri,
    sources: { kms: { token: { env: 'BAO_TOKEN' } }, storage: {} },
  });
  const state = (await workspace.read('asterism-state.json')) ?? '';
  assert.doesNotMatch(state, /hunter22|measurementSecret"/);
});

test('clusters that share a bucket have a prefix of their own in it, unless the user chose one', () => {
  const { kms } = external;
  assert.ok(kms.type !== 'cluster');
  const inBucket = (parameters: Record<string, string>, v26Blobs = false) => {
    const store = {
      type: 'aws' as const,
      parameters: { bucket: 'b12', region: 'eu-central-1', ...parameters },
      credentials: {},
    };
    return externalKeyHome({ ...kms, store, v26Blobs }, 'ab'.repeat(32), 1).storageUri;
  };
  assert.match(inBucket({}), /&prefix=asterism%2Fabababababababab%2F$/);
  assert.match(inBucket({ prefix: 'mine/' }), /&prefix=mine%2F$/);
  assert.doesNotMatch(inBucket({}, true), /prefix/);
});

test('an init with an external KMS goes on with the same secret, and with no other KMS', async (t) => {
  let fails = true;
  const { workspace, input, requests } = await scene(t, async (request) => {
    if (fails) throw new StatusError('INTERNAL', 'ERR_PHASE', 'kubeadm failed');
    return idOf(request);
  });
  const first = { ...input, config: external };
  await assert.rejects(initCluster(first, parts()), { code: 'ERR_PHASE' });
  const { kms } = external;
  assert.ok(kms.type !== 'cluster');
  for (const other of [
    config,
    { ...external, kms: { ...kms, parameters: { ...kms.parameters, keyName: 'other' } } },
    {
      ...external,
      kms: {
        ...kms,
        store: { ...kms.store, type: 'aws' as const, parameters: { bucket: 'b', region: 'r' } },
      },
    },
  ])
    await assert.rejects(initCluster({ ...input, config: other }, parts()), { code: 'ERR_OTHER_KMS' });
  fails = false;
  await initCluster(first, parts());
  assert.equal(requests.length, 2);
  assert.deepEqual(requests[0]!.measurementSecret, requests[1]!.measurementSecret);
  assert.equal((await workspace.requireState()).measurementSecret, undefined);
});

test('an external KMS with a file of a master secret is refused', async (t) => {
  const { input } = await scene(t);
  const given = { ...input, config: external, masterSecretFile: 'secret.json' };
  await assert.rejects(initCluster(given, parts()), { code: 'ERR_MASTER_SECRET' });
});

test('with an external KMS too, a kubeconfig that is lost before the node was told is asked for again', async (t) => {
  let hears = false;
  const { workspace, input, requests } = await scene(t, idOf, async () => {
    if (!hears) throw new StatusError('UNAVAILABLE', 'ERR_X', 'not now');
  });
  const first = { ...input, config: external };
  await initCluster(first, parts());
  const unconfirmed = await workspace.requireState();
  assert.equal(unconfirmed.initUnconfirmed, true);
  await workspace.remove(KUBECONFIG_FILE);
  hears = true;
  await initCluster(first, parts());
  assert.equal(await workspace.read(KUBECONFIG_FILE), 'apiVersion: v1');
  assert.deepEqual(requests[1]?.measurementSecret, requests[0]?.measurementSecret);
  const { measurementSecret, initUnconfirmed, clusterId } = await workspace.requireState();
  assert.deepEqual(
    [measurementSecret, initUnconfirmed, clusterId],
    [undefined, undefined, unconfirmed.clusterId],
  );
});

for (const [what, chosen] of [
  ['the master secret', config],
  ['an external KMS', external],
] as const) {
  test(`a disk that is full at any write of an init with ${what} loses nothing`, {
    skip: process.getuid?.() !== 0 && 'mounting needs root',
  }, async (t) => {
    let at = 0;
    while (await survives(t, chosen, at)) at++;
    assert.ok(at >= 4, `${at} writes`);
  });
}

/** An init whose disk is full from its write `at` on. @returns false where it makes no such write */
async function survives(t: TestContext, chosen: ClusterConfig, at: number): Promise<boolean> {
  const found = await scene(t, async (request) => {
    const secret = await found.workspace.masterSecret();
    return secret === undefined ? idOf(request) : clusterIdOf(secret, request.measurementSalt);
  });
  const { folder } = found.workspace;
  const state = await found.workspace.requireState();
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder]);
  try {
    await found.workspace.writeState(state);
    const filler = join(folder, 'filler');
    let writes = 0;
    const workspace = new KilledAt(folder, () => {
      if (writes++ === at) fill(filler);
      return false;
    });
    const input = { ...found.input, workspace, config: chosen };
    const error = await initCluster(input, parts()).then(
      () => undefined,
      (reason) => reason,
    );
    if (writes <= at) return false;
    assert.equal(error?.code, 'ERR_WRITE', `write ${at}`);
    assert.match(error.message, /cannot be written: no space left on device/);
    await rm(filler);
    const done = await initCluster(input, parts());
    assert.equal(done.phase, 'initialized');
    const [first] = found.requests;
    for (const { kmsUri, measurementSecret, measurementSalt } of found.requests)
      assert.deepEqual(
        [kmsUri, measurementSecret, measurementSalt],
        [first?.kmsUri, first?.measurementSecret, first?.measurementSalt],
      );
    const left = (await readdir(folder)).filter((name) => name.endsWith('.tmp'));
    assert.deepEqual(left, []);
    return true;
  } finally {
    execFileSync('umount', [folder]);
  }
}

/** To the last byte. */
function fill(path: string): void {
  for (const size of [1 << 16, 1 << 12, 1]) {
    try {
      for (;;) appendFileSync(path, new Uint8Array(size));
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
    }
  }
}
