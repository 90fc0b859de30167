// A world for commands on loopback: real aTLS, gRPC and HTTP; the machines and the evidence are made up.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Verifier } from '@asterism/attestation/types';
import { toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { Workspace } from '@asterism/config/workspace';
import { clusterId, deriveKey, MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import { AsterismError } from '@asterism/errors/errors';
import { parseClusterKmsUri } from '@asterism/kms/cluster-uri';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API as InitApi } from '@asterism/rpc/gen/init_pb';
import { API as VerifyApi } from '@asterism/rpc/gen/verify_pb';
import { PlainGrpcServer } from '@asterism/rpc/plain-server';
import { StatusError } from '@asterism/rpc/status';
import { fakeDocument, fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { type KeyPairPem, type TestCa, testCa } from '@asterism/testkit/test-ca';
import type { Context } from './context.ts';
import { BOOTSTRAPPER_PORT } from './flows/init-cluster.ts';
import type { MiniOptions } from './flows/mini.ts';
import { VERIFY_PORT } from './flows/verify-node.ts';
import type { FoundCluster } from './machines.ts';
import { Output } from './output.ts';
import type { Parts } from './parts.ts';
import { Progress } from './progress.ts';

export const measurements = { 4: { expected: '11'.repeat(32), warnOnly: false } };
/** `mini up` without flags, on a machine that is large enough. */
export const AS_FOUND: MiniOptions = {
  controlPlaneNodes: undefined,
  workerNodes: undefined,
  kubernetesVersion: undefined,
  checkMachine: async () => {},
};
/** What the commands say their evidence is worth here. */
export const TRUST = 'This evidence is made up.';

let count = 0;

/** A workspace and a world in which two nodes live at loopback addresses. */
export async function world(t: TestContext, options: { failInits?: number } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-world-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const net = `127.${100 + ((process.pid >> 8) % 100)}.${process.pid & 255}`;
  const addresses = [`${net}.${++count}`, `${net}.${++count}`];
  const done: string[] = [];
  const running = new Set<string>();
  /** Clusters whose machines are there. */
  const clusters: FoundCluster[] = [];
  /** What happens next, for a test to set. */
  const fate: { destroy?: Error; evidence?: Error; permission?: Error } = {};
  let inits = 0;

  const ca = await testCa();
  const [serving, administrator] = await Promise.all([
    ca.issue({ name: 'kubernetes', usage: 'server', addresses: ['127.0.0.1'] }),
    ca.issue({ name: 'test-admin', usage: 'client' }),
  ]);
  const tls = { cert: serving.certificate, key: serving.key, ca: ca.pem, requestCert: true };
  const api = createServer(tls, (request, response) => {
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
      const derived = () => {
        const { key, salt } = parseClusterKmsUri(request.kmsUri);
        return deriveKey(key, salt, MEASUREMENT_SECRET_ID, 32);
      };
      const secret = request.measurementSecret.length > 0 ? request.measurementSecret : derived();
      const id = clusterId(secret, request.measurementSalt);
      const value = { clusterId: id, kubeconfig: toUtf8(kubeconfig(port, ca, administrator)) };
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
    verify: async (...args) => {
      if (fate.evidence !== undefined) throw fate.evidence;
      return { ...(await fake.verify(...args)), pcrs: new Map([[15, new Uint8Array(32)]]) };
    },
  };
  const parts: Parts = {
    machines: {
      folder,
      checkPermission: () => {
        if (fate.permission !== undefined) throw fate.permission;
      },
      list: async () => clusters,
      create: async (spec) => {
        done.push('create');
        running.add('node-0').add('node-1');
        const { uid, name, workspace } = spec;
        clusters.push({ uid, name, nodes: { running: 2, total: 2 }, workspace });
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
      destroy: async ({ uid }) => {
        if (fate.destroy !== undefined) throw fate.destroy;
        done.push('destroy');
        const at = clusters.findIndex((cluster) => cluster.uid === uid);
        if (at < 0) return;
        clusters.splice(at, 1);
        running.clear();
      },
      status: async ({ uid }) => {
        if (clusters.some((cluster) => cluster.uid === uid))
          return [...running].map((name) => ({ name, running: true, stateDiskMapped: true }));
        throw new AsterismError('ERR_NO_CLUSTER', `there is no cluster ${uid}`);
      },
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
    trustStatement: () => TRUST,
  };
  const silent = { isTTY: false, write: () => true } as unknown as NodeJS.WriteStream;
  const context = (): Context => ({
    workspace: new Workspace(folder),
    out: new Output('text'),
    progress: new Progress(silent),
    force: false,
    signal: new AbortController().signal,
  });
  return { folder, addresses, parts, context, done, running, clusters, fate, inits: () => inits };
}

function kubeconfig(port: number, ca: TestCa, { certificate, key }: KeyPairPem): string {
  const data = (pem: string) => toBase64(toUtf8(pem));
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'x',
    clusters: [
      {
        name: 'x',
        cluster: { server: `https://127.0.0.1:${port}`, 'certificate-authority-data': data(ca.pem) },
      },
    ],
    users: [
      { name: 'x', user: { 'client-certificate-data': data(certificate), 'client-key-data': data(key) } },
    ],
    contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
  });
}
