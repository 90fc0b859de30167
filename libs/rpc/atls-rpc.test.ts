import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import dns from 'node:dns';
import { test } from 'node:test';
import { PolicyError, UnreachableError, VerificationError } from '@asterism/errors/errors';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { atlsClient } from './atls-client.ts';
import { AtlsGrpcServer } from './atls-server.ts';
import { API as Init } from './gen/init_pb.ts';
import { API as Keys } from './gen/keyservice_pb.ts';
import { StatusError } from './status.ts';

async function serve(options: ConstructorParameters<typeof AtlsGrpcServer>[0]) {
  const server = new AtlsGrpcServer(options);
  server.addService(Keys, {
    async getDataKey({ dataKeyId, length }, context) {
      if (dataKeyId === 'policy') throw new PolicyError('ERR_TEST_POLICY', 'not allowed');
      if (dataKeyId === 'crash') throw new Error('secret 4711');
      if (dataKeyId === 'slow') {
        await new Promise((_, reject) => {
          context.signal.addEventListener('abort', () => reject(context.signal.reason));
        });
      }
      const machine = context.peer.verdict?.attestationKeyId ?? '';
      return {
        dataKey: new TextEncoder().encode(`${dataKeyId}:${length}:${context.peer.address}:${machine}`),
      };
    },
  });
  server.addService(Init, {
    init: async () => ({}),
    confirmInit: async () => ({}),
    async *initStream({ clusterName }) {
      for (let number = 1; number <= 3; number++)
        yield { kind: { case: 'progress', value: { phase: clusterName, state: 'done', number, total: 3 } } };
      if (clusterName === 'fails')
        throw new StatusError('FAILED_PRECONDITION', 'ERR_TEST', 'stopped half way');
    },
  });
  const { port } = await server.listen(0, '127.0.0.1');
  return { server, port };
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

test('one way: unary and streaming calls, the peer is known', async () => {
  const { server, port } = await serve({ issuer: fakeIssuer() });
  const target = { host: '127.0.0.1', port, verifiers: [fakeVerifier()] };
  const client = atlsClient(Keys, target);
  assert.equal((await client.peer())?.variant, 'fake');
  const { dataKey } = await client.getDataKey({ dataKeyId: 'a', length: 32 });
  assert.equal(text(dataKey), 'a:32:127.0.0.1:');
  client.close();

  const init = atlsClient(Init, target);
  const phases = [];
  for await (const event of init.initStream({ clusterName: 'c' })) phases.push(event.kind.value);
  assert.equal(phases.length, 3);
  const seen = [];
  await assert.rejects(
    async () => {
      for await (const event of init.initStream({ clusterName: 'fails' })) seen.push(event);
    },
    (error: StatusError) => error.status === 'FAILED_PRECONDITION' && error.code === 'ERR_TEST',
  );
  assert.equal(seen.length, 3);
  init.close();
  await server.stop(1000);
});

test('errors of handlers: statuses, codes, and nothing of unexpected ones', async () => {
  const logged: object[] = [];
  const log = { warn: () => {}, error: (fields: object) => logged.push(fields) };
  const { server, port } = await serve({ issuer: fakeIssuer(), log });
  const client = atlsClient(Keys, { host: '127.0.0.1', port, verifiers: [fakeVerifier()] });
  await assert.rejects(client.getDataKey({ dataKeyId: 'policy' }), (error: StatusError) => {
    assert.equal(error.status, 'PERMISSION_DENIED');
    assert.equal(error.code, 'ERR_TEST_POLICY');
    return true;
  });
  await assert.rejects(client.getDataKey({ dataKeyId: 'crash' }), (error: StatusError) => {
    assert.equal(error.status, 'INTERNAL');
    assert.doesNotMatch(error.message, /4711/);
    return true;
  });
  assert.equal(logged.length, 1);
  await assert.rejects(client.getDataKey({ dataKeyId: 'slow' }, { timeoutMs: 200 }), UnreachableError);
  client.close();
  await server.stop(1000);
});

test('evidence that fails reaches the caller as its own error', async () => {
  const { server, port } = await serve({ issuer: fakeIssuer() });
  const policy = new PolicyError('ERR_PCR', 'PCR 4 differs');
  const client = atlsClient(Keys, { host: '127.0.0.1', port, verifiers: [fakeVerifier({ fail: policy })] });
  await assert.rejects(client.getDataKey({}), policy);
  await assert.rejects(client.peer(), policy);
  client.close();
  const other = atlsClient(Keys, {
    host: '127.0.0.1',
    port,
    verifiers: [fakeVerifier({ oid: '1.3.9900.2' })],
  });
  await assert.rejects(other.peer(), VerificationError);
  other.close();
  await server.stop(1000);
});

test('nothing listens: UnreachableError', async () => {
  const client = atlsClient(Keys, { host: '127.0.0.1', port: 1, verifiers: [fakeVerifier()] });
  await assert.rejects(client.getDataKey({}), UnreachableError);
  await assert.rejects(client.peer(), UnreachableError);
  client.close();
});

test('a client never connects to a second machine', async () => {
  const { server, port } = await serve({ issuer: fakeIssuer() });
  const client = atlsClient(Keys, { host: '127.0.0.1', port, verifiers: [fakeVerifier()] });
  await client.getDataKey({});
  await server.stop(100);
  const second = new AtlsGrpcServer({ issuer: fakeIssuer() });
  await second.listen(port, '127.0.0.1');
  await assert.rejects(client.getDataKey({}), UnreachableError);
  await assert.rejects(client.getDataKey({}), /make a new client/);
  client.close();
  await second.stop(100);
});

test('a name with two addresses: the first is waited for, however long its handshake takes', async (t) => {
  const addresses = ['127.0.0.1', '127.0.0.2'];
  t.mock.method(dns.promises, 'lookup', async () => addresses.map((address) => ({ address, family: 4 })));
  const { server, port } = await serve({ issuer: fakeIssuer({ delayMs: 1500 }) });
  const other = new AtlsGrpcServer({ issuer: fakeIssuer() });
  await other.listen(port, addresses[1]);
  const client = atlsClient(Keys, { host: 'two.test', port, verifiers: [fakeVerifier()] });
  assert.equal((await client.peer())?.variant, 'fake');
  const { dataKey } = await client.getDataKey({ dataKeyId: 'a', length: 1 });
  assert.equal(text(dataKey), 'a:1:127.0.0.1:');
  client.close();
  await server.stop(100);
  await other.stop(100);
});

test('verified connections that do nothing make room for the next caller of their address', async () => {
  const { server, port } = await serve({ issuer: fakeIssuer(), maxConnectionsPerAddress: 4 });
  const target = { host: '127.0.0.1', port, verifiers: [fakeVerifier()] };
  const idle = Array.from({ length: 10 }, () => atlsClient(Keys, target));
  await Promise.all(idle.map((client) => client.peer()));
  const client = atlsClient(Keys, target);
  const { dataKey } = await client.getDataKey({ dataKeyId: 'a', length: 1 });
  assert.equal(text(dataKey), 'a:1:127.0.0.1:');
  assert.ok(server.connections.served <= 4);
  for (const each of [...idle, client]) each.close();
  await server.stop(100);
});

test('mutual: the handler sees the verdict of the very connection, with many at once', async () => {
  const { server, port } = await serve({ issuer: fakeIssuer(), verifiers: [fakeVerifier()] });
  const ids = new Map<string, string>();
  await Promise.all(
    Array.from({ length: 24 }, async (_, i) => {
      const issuer = fakeIssuer({ machine: `machine-${i}`, length: 100 * i });
      const client = atlsClient(Keys, { host: '127.0.0.1', port, issuer, verifiers: [fakeVerifier()] });
      const expected = createHash('sha256').update(`machine-${i}`).digest('hex');
      for (let n = 0; n < 10; n++) {
        const { dataKey } = await client.getDataKey({ dataKeyId: `${i}`, length: n });
        assert.equal(text(dataKey), `${i}:${n}:127.0.0.1:${expected}`);
      }
      ids.set(expected, `${i}`);
      client.close();
    }),
  );
  assert.equal(ids.size, 24);
  await server.stop(1000);
});

test('a server that refuses the evidence says so, and the client passes it on', async () => {
  const refused: Error[] = [];
  const log = { warn: (fields: object) => refused.push((fields as { err: Error }).err), error: () => {} };
  const { server, port } = await serve({
    issuer: fakeIssuer(),
    verifiers: [fakeVerifier({ fail: new PolicyError('ERR_PCR_MISMATCH', 'PCR 11 differs') })],
    log,
  });
  const client = atlsClient(Keys, {
    host: '127.0.0.1',
    port,
    issuer: fakeIssuer(),
    verifiers: [fakeVerifier()],
  });
  await assert.rejects(client.getDataKey({}), (error: Error) => {
    assert.ok(error instanceof VerificationError);
    assert.equal(error.code, 'ERR_ATLS_REFUSED');
    assert.match(error.message, /evidence refused: ERR_PCR_MISMATCH/);
    return true;
  });
  client.close();
  assert.equal((refused[0] as PolicyError).code, 'ERR_PCR_MISMATCH');
  await server.stop(1000);
});
