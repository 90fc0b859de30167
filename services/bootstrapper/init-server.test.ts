import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { equal } from '@asterism/bytes/bytes';
import type { AsterismError } from '@asterism/errors/errors';
import { atlsClient } from '@asterism/rpc/atls-client';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API, type InitResponse } from '@asterism/rpc/gen/init_pb';
import { AuditLog } from '@asterism/runtime/audit-log';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { hash } from 'bcryptjs';
import { DELIVERY_MS, deliveryLeftMs, markEnded } from './delivery.ts';
import { instance, makeTestMachine, type TestMachine, testKeys, testMetadata } from './fake-machine.ts';
import { type InitEnd, MAX_REQUEST_BYTES, serveInit } from './init-server.ts';
import { Journal } from './journal.ts';
import { NodeLock } from './node-lock.ts';
import { SecretGuard } from './secret-guard.ts';
import { decideStart } from './start.ts';

const SECRET = Buffer.from('correct horse battery staple');
const HASH = await hash(SECRET.toString(), 4);
const HOST = '127.0.0.1';
const quiet = { info() {}, warn() {}, error() {} };
const order = {
  kmsUri: `kms://cluster-kms?key=${randomBytes(32).toString('hex')}`,
  kubernetesVersion: 'v1.37.2',
  kubernetesComponents: ['kubeadm', 'kubelet', 'kubectl'].map((name) => ({
    url: `http://10.77.1.1:8080/components/${name}`,
    hash: `sha256:${'0'.repeat(64)}`,
    installPath: `/run/state/bin/${name}`,
  })),
  initSecret: SECRET,
  measurementSalt: new Uint8Array(32).fill(5),
};

describe('the answer of an init', () => {
  let machine: TestMachine;
  let stop: AsyncDisposableStack;
  beforeEach(async () => {
    stop = new AsyncDisposableStack();
    machine = await makeTestMachine();
    stop.defer(() => machine.remove());
  });
  afterEach(() => stop.disposeAsync());

  const journal = async () => (await Journal.load(machine.machine.layout.initJournal))!;
  const start = async () => (await decideStart(machine.tpm.pcrs.get(15)!, machine.machine.layout)).kind;

  /** One life of the server. */
  async function life(
    leftMs?: number,
  ): Promise<{ port: number; end: Promise<InitEnd>; kill: () => Promise<void> }> {
    const audit = await AuditLog.open(join(machine.folder, 'audit.log'));
    const killed = new AbortController();
    const served = Promise.withResolvers<number>();
    const end = serveInit(
      {
        machine: machine.machine,
        metadata: testMetadata(instance('cp-0', '10.77.1.2', 'ControlPlane')),
        keys: testKeys,
        policy: { settle: () => '{}' },
        lock: new NodeLock(),
        log: quiet,
        guard: new SecretGuard(HASH),
        audit,
        server: new AtlsGrpcServer({ issuer: fakeIssuer(), maxRequestBytes: MAX_REQUEST_BYTES }),
        port: 0,
        host: HOST,
        onServing: (_, port) => served.resolve(port),
        ...(leftMs === undefined ? {} : { leftMs }),
      },
      killed.signal,
    ).finally(() => audit.close());
    const kill = async (): Promise<void> => {
      killed.abort();
      await end;
    };
    stop.defer(kill);
    return { port: await served.promise, end, kill };
  }

  const connected = (port: number) => {
    const client = atlsClient(API, { host: HOST, port, verifiers: [fakeVerifier()] });
    stop.defer(async () => client.close());
    return client;
  };

  /** As a caller does it: again while the place of an earlier call is not free yet. */
  async function init(port: number): Promise<InitResponse> {
    for (;;) {
      try {
        for await (const { kind } of connected(port).initStream(order))
          if (kind.case === 'done') return kind.value;
        throw new Error('no answer');
      } catch (error) {
        if ((error as AsterismError).code !== 'ERR_NODE_BUSY') throw error;
        await new Promise((go) => setTimeout(go, 20));
      }
    }
  }

  it('is given again where a proxy fell silent before the last message, and the caller confirms the second', async () => {
    const first = await life();
    const proxy = await silentProxy(first.port);
    stop.defer(async () => proxy.close());
    let told = 0;
    machine.node.hook = async (step) => {
      if (step.startsWith('kubeadm kubeconfig user')) proxy.silence();
    };
    const cut = (async () => {
      for await (const { kind } of connected(proxy.port).initStream(order)) {
        told++;
        assert.notEqual(kind.case, 'done');
      }
    })();
    cut.catch(() => {});
    await proxy.silent;
    // The node has sent its answer, and cannot know that nobody has it.
    while (deliveryLeftMs(await journal()) === undefined) await new Promise((go) => setTimeout(go, 10));
    assert.ok(told > 0);
    assert.equal(await start(), 'deliver-init');
    const { clusterId, kubeconfig } = await init(first.port);
    assert.ok(kubeconfig.length > 0);
    await connected(first.port).confirmInit({ initSecret: SECRET, clusterId });
    proxy.close();
    assert.equal(await first.end, 'confirmed');
    assert.equal(await start(), 'member');
  });

  it('outlives the process: a later one serves it until it is confirmed', async () => {
    const first = await life();
    const answer = await init(first.port);
    await first.kill();
    assert.equal(await first.end, 'stopped');
    assert.equal(await start(), 'deliver-init');
    const second = await life(deliveryLeftMs(await journal())!);
    assert.ok(equal((await init(second.port)).clusterId, answer.clusterId));
    await connected(second.port).confirmInit({ initSecret: SECRET, clusterId: answer.clusterId });
    assert.equal(await second.end, 'confirmed');
    assert.equal(await start(), 'member');
  });

  it('is withdrawn when its time is over, also for a caller that never confirms', async () => {
    const first = await life();
    await connected(first.port).init(order);
    await first.kill();
    const second = await life(50);
    assert.equal(await second.end, 'expired');
    assert.equal(await start(), 'member');
  });

  it('does not live longer by being fetched again, nor by a clock that is set back', async () => {
    const path = join(machine.folder, 'journal.json');
    const one = await Journal.begin(path, 'init', '00'.repeat(32), 'order');
    assert.equal(deliveryLeftMs(one), undefined);
    await markEnded(one, 1_000_000);
    await markEnded(one, 2_000_000);
    const again = (await Journal.load(path))!;
    assert.equal(deliveryLeftMs(again, 1_000_000), DELIVERY_MS);
    assert.equal(deliveryLeftMs(again, 1_000_100), DELIVERY_MS - 100);
    assert.equal(deliveryLeftMs(again, 0), DELIVERY_MS);
    assert.equal(deliveryLeftMs(again, 1_000_000 + 2 * DELIVERY_MS), 0);
  });
});

/** Passes bytes on until it is told to swallow those of the server; its connections stay open. */
async function silentProxy(
  target: number,
): Promise<{ port: number; silence: () => void; silent: Promise<void>; close: () => void }> {
  let quietNow = false;
  const { promise, resolve } = Promise.withResolvers<void>();
  const open = new Set<{ destroy(): void }>();
  const server: Server = createServer((client) => {
    const backend = connect(target, HOST);
    for (const socket of [client, backend]) {
      open.add(socket);
      socket.on('error', () => {});
    }
    client.on('data', (data) => backend.write(data));
    backend.on('data', (data) => {
      if (!quietNow) client.write(data);
    });
  });
  after(() => server.close());
  await new Promise<void>((go) => server.listen(0, HOST, go));
  return {
    port: (server.address() as { port: number }).port,
    silence: () => {
      quietNow = true;
      resolve();
    },
    silent: promise,
    close: () => {
      for (const socket of open) socket.destroy();
      server.close();
    },
  };
}
