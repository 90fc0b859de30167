// `mini up` and `mini down` over real aTLS, gRPC and HTTP on loopback; the machines and the evidence are made up.
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Verifier } from '@asterism/attestation/types';
import { toUtf8 } from '@asterism/bytes/encoding';
import { Workspace } from '@asterism/config/workspace';
import { clusterId, deriveKey, MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import { parseClusterKmsUri } from '@asterism/kms/cluster-uri';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API as InitApi } from '@asterism/rpc/gen/init_pb';
import { API as VerifyApi } from '@asterism/rpc/gen/verify_pb';
import { PlainGrpcServer } from '@asterism/rpc/plain-server';
import { StatusError } from '@asterism/rpc/status';
import { fakeDocument, fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import type { Context } from '../context.ts';
import { Output } from '../output.ts';
import type { Parts } from '../parts.ts';
import { Progress } from '../progress.ts';
import { BOOTSTRAPPER_PORT } from './init-cluster.ts';
import { miniDown, miniUp } from './mini.ts';
import { VERIFY_PORT } from './verify-node.ts';

const measurements = { 4: { expected: '11'.repeat(32), warnOnly: false } };
const none = { controlPlaneNodes: undefined, workerNodes: undefined, kubernetesVersion: undefined };

let count = 0;

/** A workspace and a world in which two nodes live at loopback addresses. */
async function world(t: TestContext, options: { failInits?: number } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-mini-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const net = `127.78.${process.pid % 200}`;
  const addresses = [`${net}.${++count}`, `${net}.${++count}`];
  const done: string[] = [];
  const running = new Set<string>();
  let inits = 0;

  const api = createServer((request, response) => {
    response.setHeader('content-type', 'application/json');
    const items = addresses.map((_, i) => ({
      metadata: { name: `node-${i}`, labels: {} },
      status: { conditions: [{ type: 'Ready', status: 'True' }], nodeInfo: { kubeletVersion: 'v1.37.2' } },
    }));
    response.end(
      JSON.stringify({ apiVersion: 'v1', kind: 'NodeList', metadata: {}, items, path: request.url }),
    );
  });
  await new Promise<void>((resolve) => api.listen(0, '127.0.0.1', resolve));
  t.after(() => api.close());
  const { port } = api.address() as { port: number };

  const bootstrapper = new AtlsGrpcServer({ issuer: fakeIssuer(), handshakeTimeoutMs: 5000, maxPending: 10 });
  bootstrapper.addService(InitApi, {
    init: async () => ({}),
    confirmInit: async () => ({}),
    initStream: async function* (request) {
      inits += 1;
      const phase = { phase: 'kubeadm', number: 1, total: 1 };
      yield { kind: { case: 'progress', value: { ...phase, state: 'started' } } } as const;
      if (inits <= (options.failInits ?? 0)) throw new StatusError('INTERNAL', 'ERR_PHASE', 'kubeadm failed');
      yield { kind: { case: 'progress', value: { ...phase, state: 'done' } } } as const;
      const { key, salt } = parseClusterKmsUri(request.kmsUri);
      const id = clusterId(deriveKey(key, salt, MEASUREMENT_SECRET_ID, 32), request.measurementSalt);
      const value = { clusterId: id, kubeconfig: toUtf8(kubeconfig(port)) };
      yield { kind: { case: 'done', value } } as const;
    },
  });
  await bootstrapper.listen(BOOTSTRAPPER_PORT, addresses[0]);
  t.after(() => bootstrapper.stop(0));
  for (const [i, address] of addresses.entries()) {
    const server = new PlainGrpcServer({});
    server.addService(VerifyApi, {
      getAttestation: async ({ nonce }) => ({
        attestation: fakeDocument(toUtf8('VerifyService'), nonce, { machine: `${i}` }),
      }),
    });
    await server.listen(VERIFY_PORT, address);
    t.after(() => server.stop(0));
  }

  const fake = fakeVerifier();
  const verifier: Verifier = {
    ...fake,
    verify: async (...args) => ({
      ...(await fake.verify(...args)),
      pcrs: new Map([[15, new Uint8Array(32)]]),
    }),
  };
  const parts: Parts = {
    machines: {
      create: async (spec) => {
        done.push('create');
        running.add('node-0').add('node-1');
        assert.equal(spec.image, 'sha256:image');
        return {
          endpoint: addresses[0]!,
          nodes: addresses.map((address, i) => ({
            name: `node-${i}`,
            role: i === 0 ? ('ControlPlane' as const) : ('Worker' as const),
            address,
          })),
        };
      },
      destroy: async () => {
        done.push('destroy');
        running.clear();
      },
      status: async () => [...running].map((name) => ({ name, running: true, stateDiskMapped: true })),
      start: async () => {},
      stop: async () => {},
      exec: async () => 0,
      logs: async () => {},
    },
    images: {
      built: async () => undefined,
      build: async () => {
        done.push('image');
        return { reference: 'sha256:image', path: '/image', measurements };
      },
    },
    components: {
      list: async () => [
        { version: 'v1.37.2', isDefault: true, built: true, kubectl: '/cache/kubectl', components: [] },
        { version: 'v1.36.3', isDefault: false, built: false, kubectl: '/cache/kubectl2', components: [] },
      ],
      provide: async (version) => void done.push(`components ${version}`),
      verify: async () => [],
      forNodes: async () => [],
    },
    verifier: () => verifier,
    trustStatement: () => 'made up',
  };
  const silent = { isTTY: false, write: () => true } as unknown as NodeJS.WriteStream;
  const context = (): Context => ({
    workspace: new Workspace(folder),
    out: new Output('text', false),
    progress: new Progress(silent),
    force: false,
    signal: new AbortController().signal,
  });
  return { folder, parts, context, done, running, inits: () => inits };
}

function kubeconfig(port: number): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'x',
    clusters: [
      { name: 'x', cluster: { server: `http://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true } },
    ],
    users: [{ name: 'x', user: {} }],
    contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
  });
}

test('from nothing to a verified cluster, with its times kept', async (t) => {
  const { folder, parts, context, done } = await world(t);
  const result = await miniUp(context(), parts, none);
  assert.equal(result.already, false);
  assert.deepEqual(done, ['components v1.37.2', 'image', 'create']);
  assert.deepEqual(
    result.verdicts.map((verdict) => verdict.outcome),
    ['passed', 'passed'],
  );
  const { phases } = JSON.parse(await readFile(join(folder, 'phases.json'), 'utf8'));
  assert.deepEqual(
    phases.map((one: { phase: string }) => one.phase),
    ['components of v1.37.2', 'node image', 'machines', 'init kubeadm', 'init', 'nodes Ready', 'verify'],
  );
});

test('run again on a live cluster it makes nothing and says so', async (t) => {
  const { folder, parts, context, done, inits } = await world(t);
  await miniUp(context(), parts, none);
  const files = await Promise.all(
    (await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8')),
  );
  done.length = 0;
  const result = await miniUp(context(), parts, none);
  assert.equal(result.already, true);
  assert.deepEqual(done, []);
  assert.equal(inits(), 1);
  const after = await Promise.all(
    (await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8')),
  );
  assert.deepEqual(after, files);
});

test('an init that failed is gone on with, on the same machines', async (t) => {
  const { parts, context, done, inits } = await world(t, { failInits: 1 });
  await assert.rejects(miniUp(context(), parts, none), { code: 'ERR_PHASE' });
  done.length = 0;
  await miniUp(context(), parts, none);
  assert.deepEqual(done, []);
  assert.equal(inits(), 2);
});

test('machines that were never finished are removed and made anew', async (t) => {
  const { parts, context, done } = await world(t, { failInits: 1 });
  await assert.rejects(miniUp(context(), parts, none), { code: 'ERR_PHASE' });
  const { workspace } = context();
  await workspace.writeState({ ...(await workspace.requireState()), phase: 'creating' });
  await rm(workspace.path('asterism-mastersecret.json'));
  done.length = 0;
  await miniUp(context(), parts, none);
  assert.deepEqual(done, ['destroy', 'components v1.37.2', 'image', 'create']);
});

test('a cluster whose nodes are stopped is left alone; the message says what to do', async (t) => {
  const { parts, context, done, running } = await world(t);
  await miniUp(context(), parts, none);
  running.delete('node-1');
  done.length = 0;
  await assert.rejects(miniUp(context(), parts, none), /node-1.*asterism local start/s);
  assert.deepEqual(done, []);
});

test('flags that contradict the configuration are refused before anything is made', async (t) => {
  const { parts, context, done } = await world(t, { failInits: 1 });
  await assert.rejects(miniUp(context(), parts, none), { code: 'ERR_PHASE' });
  const { workspace } = context();
  await workspace.remove('asterism-state.json');
  done.length = 0;
  await assert.rejects(miniUp(context(), parts, { ...none, workerNodes: 5 }), /says 1 worker nodes/);
  assert.ok(!done.includes('create'));
});

test('a version that is not in the catalogue is refused with those that are', async (t) => {
  const { parts, context, done } = await world(t);
  await assert.rejects(
    miniUp(context(), parts, { ...none, kubernetesVersion: 'v1.0.0' }),
    /v1\.37\.2, v1\.36\.3/,
  );
  assert.deepEqual(done, []);
});

test('down leaves nothing, and can be repeated', async (t) => {
  const { folder, parts, context, done } = await world(t);
  await miniUp(context(), parts, none);
  await miniDown(context(), parts);
  assert.ok(done.includes('destroy'));
  await assert.rejects(readdir(folder), { code: 'ENOENT' });
  await miniDown(context(), parts);
});

test('down keeps what is not ours', async (t) => {
  const { folder, parts, context } = await world(t);
  await miniUp(context(), parts, none);
  await writeFile(join(folder, 'notes.txt'), 'mine');
  await miniDown(context(), parts);
  assert.deepEqual(await readdir(folder), ['notes.txt']);
});
