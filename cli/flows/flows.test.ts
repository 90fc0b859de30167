// The flows over real aTLS and gRPC on loopback; only the evidence is made up.
import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError, PolicyError, UnreachableError, VerificationError } from '@asterism/errors/errors';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API as InitApi, type InitRequest } from '@asterism/rpc/gen/init_pb';
import { API as RecoverApi, type RecoverMessage } from '@asterism/rpc/gen/recover_pb';
import { API as VerifyApi } from '@asterism/rpc/gen/verify_pb';
import { PlainGrpcServer } from '@asterism/rpc/plain-server';
import { StatusError } from '@asterism/rpc/status';
import { fakeDocument, fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { freePort } from '@asterism/testkit/free-port';
import { exitCodeOf } from '../exit-codes.ts';
import { type InitPlan, initialize } from './initialize.ts';
import { recoverNodes } from './recover-nodes.ts';
import { exitCodeOfAll, verifyNode, verifyNodes } from './verify-node.ts';

const never = new AbortController().signal;
const atls = () => new AtlsGrpcServer({ issuer: fakeIssuer(), handshakeTimeoutMs: 5000, maxPending: 10 });

function plan(port: number, more: Partial<InitPlan> = {}): InitPlan {
  return {
    host: '127.0.0.1',
    port,
    node: 'control-plane-0',
    request: { clusterName: 'test', initSecret: toUtf8('secret') },
    verifier: fakeVerifier(),
    signal: never,
    patienceMs: 500,
    pauseMs: 50,
    onPeer: () => {},
    onProgress: () => {},
    onLog: () => {},
    onRetry: () => {},
    ...more,
  };
}

type InitStream = (request: InitRequest) => AsyncIterable<{
  kind:
    | { case: 'progress'; value: { phase: string; state: string; number: number; total: number } }
    | { case: 'log'; value: string }
    | { case: 'done'; value: { clusterId: Uint8Array; kubeconfig: Uint8Array } };
}>;

async function initServer(t: TestContext, initStream: InitStream, port = 0): Promise<number> {
  const server = atls();
  server.addService(InitApi, {
    init: async () => {
      throw new StatusError('UNIMPLEMENTED', 'ERR_X', 'only the stream');
    },
    initStream,
    confirmInit: async () => ({}),
  });
  const address = await server.listen(port, '127.0.0.1');
  t.after(() => server.stop(0));
  return address.port;
}

test('init sends nothing to a node whose evidence is refused, and does not try again', async (t) => {
  let called = 0;
  const port = await initServer(t, async function* () {
    called += 1;
    yield { kind: { case: 'log', value: 'x' } } as const;
  });
  for (const [error, code] of [
    [new VerificationError('ERR_QUOTE', 'false'), 2],
    [new PolicyError('ERR_PCR', 'other measurements'), 3],
  ] as const) {
    let retries = 0;
    const verifier = fakeVerifier({ fail: error });
    const call = initialize(plan(port, { verifier, onRetry: () => (retries += 1) }));
    await assert.rejects(call, (found) => exitCodeOf(found) === code);
    assert.equal(retries, 0);
  }
  assert.equal(called, 0);
});

test('init gives up on an address where nobody is, with exit code 4', async () => {
  let retries = 0;
  const call = initialize(plan(await freePort(), { onRetry: () => (retries += 1) }));
  await assert.rejects(
    call,
    (error) =>
      exitCodeOf(error) === 4 &&
      /no sign of life.*`asterism local logs control-plane-0`/.test((error as Error).message),
  );
  assert.ok(retries >= 2);
});

test('a refusal by the node is passed on at once, in its own words', async (t) => {
  let called = 0;
  const port = await initServer(t, async function* () {
    called += 1;
    yield* [];
    throw new StatusError('UNAUTHENTICATED', 'ERR_INIT_SECRET', 'invalid init secret');
  });
  await assert.rejects(initialize(plan(port)), (error) => {
    assert.ok(error instanceof AsterismError);
    assert.equal(error.code, 'ERR_INIT_SECRET');
    assert.match(error.message, /invalid init secret/);
    return exitCodeOf(error) === 1;
  });
  assert.equal(called, 1);
});

test('a stream that ends without a result is a failure', async (t) => {
  const port = await initServer(t, async function* () {
    yield { kind: { case: 'log', value: 'bye' } } as const;
  });
  await assert.rejects(initialize(plan(port)), { code: 'ERR_INIT_ENDED' });
});

test('init tries again while the node is not there yet, and shows what it reports', async (t) => {
  const port = await freePort();
  const seen: string[] = [];
  const done = initialize(
    plan(port, {
      patienceMs: 20_000,
      onProgress: ({ phase, state }) => seen.push(`${phase} ${state}`),
      onLog: (line) => seen.push(line),
      onRetry: () => seen.push('retry'),
    }),
  );
  setTimeout(() => {
    void initServer(
      t,
      async function* (request) {
        assert.equal(request.clusterName, 'test');
        yield {
          kind: { case: 'progress', value: { phase: 'disk', state: 'started', number: 1, total: 2 } },
        } as const;
        yield { kind: { case: 'log', value: 'a line' } } as const;
        const value = { clusterId: new Uint8Array([1]), kubeconfig: toUtf8('kubeconfig') };
        yield { kind: { case: 'done', value } } as const;
      },
      port,
    );
  }, 300);
  const { clusterId } = await done;
  assert.deepEqual([...clusterId], [1]);
  assert.equal(seen[0], 'retry');
  assert.deepEqual(seen.slice(-2), ['disk started', 'a line']);
});

test('a connection that breaks in the middle of init is made anew', async (t) => {
  const port = await freePort();
  const first = atls();
  let calls = 0;
  const handlers = {
    init: async () => ({}),
    confirmInit: async () => ({}),
    initStream: async function* () {
      calls += 1;
      yield { kind: { case: 'log', value: 'started' } } as const;
      if (calls === 1) {
        setTimeout(() => void first.stop(0), 10);
        await new Promise((resolve) => setTimeout(resolve, 5000).unref());
      }
      yield { kind: { case: 'done', value: { clusterId: new Uint8Array([2]) } } } as const;
    },
  };
  first.addService(InitApi, handlers);
  await first.listen(port, '127.0.0.1');
  const second = atls();
  second.addService(InitApi, handlers);
  t.after(() => second.stop(0));
  let broke = false;
  const result = await initialize(
    plan(port, {
      patienceMs: 20_000,
      onRetry: () => {
        if (!broke) void second.listen(port, '127.0.0.1');
        broke = true;
      },
    }),
  );
  assert.deepEqual([...result.clusterId], [2]);
  assert.equal(calls, 2);
});

test('Ctrl-C ends an init that waits, at once and with its own error', async () => {
  const controller = new AbortController();
  const stopped = new Error('stopped');
  setTimeout(() => controller.abort(stopped), 200);
  const started = performance.now();
  const call = initialize(
    plan(await freePort(), { patienceMs: 60_000, pauseMs: 30_000, signal: controller.signal }),
  );
  await assert.rejects(call, stopped);
  assert.ok(performance.now() - started < 5000);
});

async function verifyServer(t: TestContext, machine: string, userData = 'VerifyService'): Promise<number> {
  const server = new PlainGrpcServer({});
  server.addService(VerifyApi, {
    getAttestation: async ({ nonce }) => ({
      attestation: fakeDocument(toUtf8(userData), nonce, { machine }),
    }),
  });
  const { port } = await server.listen(0, '127.0.0.1');
  t.after(() => server.stop(0));
  return port;
}

const target = (port: number, name = 'node') => ({ name, host: '127.0.0.1', port });

test('evidence that was made for another purpose is refused', async (t) => {
  const port = await verifyServer(t, 'a', 'something else');
  await assert.rejects(verifyNode(target(port), fakeVerifier(), never), (error: VerificationError) => {
    assert.equal(error.checks.at(-1)?.name, 'user-data');
    return error.code === 'ERR_USER_DATA' && exitCodeOf(error) === 2;
  });
});

test('evidence over another nonce is refused', async (t) => {
  const server = new PlainGrpcServer({});
  const old = fakeDocument(toUtf8('VerifyService'), new Uint8Array(32));
  server.addService(VerifyApi, { getAttestation: async () => ({ attestation: old }) });
  const { port } = await server.listen(0, '127.0.0.1');
  t.after(() => server.stop(0));
  await assert.rejects(verifyNode(target(port), fakeVerifier(), never), VerificationError);
});

test('garbage instead of evidence is false evidence, silence is exit code 4', async (t) => {
  const server = new PlainGrpcServer({});
  server.addService(VerifyApi, { getAttestation: async () => ({ attestation: toUtf8('garbage') }) });
  const { port } = await server.listen(0, '127.0.0.1');
  t.after(() => server.stop(0));
  const verdicts = await verifyNodes([target(port), target(await freePort(), 'gone')], fakeVerifier(), never);
  assert.deepEqual(
    verdicts.map(({ outcome, exitCode }) => [outcome, exitCode]),
    [
      ['failed', 2],
      ['unreachable', 4],
    ],
  );
  assert.match(verdicts[1]!.error!, /ECONNREFUSED/);
  assert.doesNotMatch(verdicts[1]!.error!, /Resolution note/);
  assert.deepEqual(
    verdicts[0]?.checks.map(({ name, outcome }) => [name, outcome]),
    [['form', 'failed']],
  );
  assert.equal(exitCodeOfAll(verdicts), 2);
});

test('two nodes that show one attestation key both fail', async (t) => {
  const ports = [await verifyServer(t, 'same'), await verifyServer(t, 'same'), await verifyServer(t, 'own')];
  const verdicts = await verifyNodes(
    ports.map((port, i) => target(port, `node-${i}`)),
    fakeVerifier(),
    never,
  );
  assert.deepEqual(
    verdicts.map(({ outcome }) => outcome),
    ['failed', 'failed', 'passed'],
  );
  assert.equal(exitCodeOfAll(verdicts), 2);
});

test('several true nodes pass', async (t) => {
  const ports = [await verifyServer(t, 'a'), await verifyServer(t, 'b')];
  const verdicts = await verifyNodes(
    ports.map((port) => target(port)),
    fakeVerifier(),
    never,
  );
  assert.equal(exitCodeOfAll(verdicts), 0);
});

function recoverPlan(ports: readonly number[], more = {}) {
  return {
    targets: ports.map((port, i) => ({ name: `cp-${i}`, host: '127.0.0.1', port })),
    verifier: fakeVerifier(),
    homes: [{ kmsUri: 'kms://cluster-kms?key=x&salt=y', storageUri: 'storage://no-store' }],
    signal: never,
    patienceMs: 1000,
    pauseMs: 50,
    onRecovered: () => {},
    onWaiting: () => {},
    ...more,
  };
}

async function recoveryServer(
  t: TestContext,
  recover: (message: RecoverMessage) => Promise<object>,
  port = 0,
) {
  const server = atls();
  server.addService(RecoverApi, { recover });
  const address = await server.listen(port, '127.0.0.1');
  t.after(() => server.stop(0));
  return { port: address.port, server };
}

test('recover tells those that were recovered from those that did not ask', async (t) => {
  const messages: RecoverMessage[] = [];
  const { port } = await recoveryServer(t, async (message) => {
    messages.push(message);
    return {};
  });
  const result = await recoverNodes(recoverPlan([port, await freePort()]));
  assert.deepEqual(result, { recovered: ['cp-0'], silent: ['cp-1'] });
  assert.equal(messages[0]?.kmsUri, 'kms://cluster-kms?key=x&salt=y');
});

test('recover waits for a node that starts late', async (t) => {
  const port = await freePort();
  setTimeout(() => void recoveryServer(t, async () => ({}), port), 400);
  assert.deepEqual((await recoverNodes(recoverPlan([port], { patienceMs: 20_000 }))).recovered, ['cp-0']);
});

test('a wrong master secret is a failure in the words of the node, not silence', async (t) => {
  const { port } = await recoveryServer(t, async () => {
    throw new StatusError('PERMISSION_DENIED', 'ERR_WRONG_KEY', 'the derived key does not open this disk');
  });
  await assert.rejects(recoverNodes(recoverPlan([port])), { code: 'ERR_WRONG_KEY' });
});

test('a node that takes the secret and hangs up counts as a failure', async (t) => {
  const { port, server } = await recoveryServer(t, async () => {
    await server.stop(0);
    return {};
  });
  await assert.rejects(recoverNodes(recoverPlan([port])), UnreachableError);
});

test('the secret is not given to a node whose evidence is refused', async (t) => {
  let called = 0;
  const { port } = await recoveryServer(t, async () => {
    called += 1;
    return {};
  });
  const verifier = fakeVerifier({ fail: new PolicyError('ERR_PCR', 'other measurements') });
  await assert.rejects(recoverNodes(recoverPlan([port], { verifier })), PolicyError);
  assert.equal(called, 0);
});

test('a peer that accepts and says nothing does not hold the command for ever', async (t) => {
  const sockets: Socket[] = [];
  const server = createServer((socket) => sockets.push(socket)).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as { port: number };
  const started = performance.now();
  assert.deepEqual((await recoverNodes(recoverPlan([port], { patienceMs: 100 }))).silent, ['cp-0']);
  assert.ok(performance.now() - started < 40_000);
});
