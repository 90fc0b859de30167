import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { createAtlsServer } from '@asterism/atls/server';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { ChannelCredentials } from '@grpc/grpc-js';
import { AtlsCredentials } from './atls-credentials.ts';

const HOST = '127.0.0.1';
const TESTED = '1.14.7';
const advice =
  'grpc-js asks credentials for a connector in another way than atls-credentials.ts answers: read its ' +
  'build/src/{channel-credentials,subchannel,transport}.js, adapt that file, then this test';

test('grpc-js is the version that atls-credentials.ts was written for', () => {
  const require = createRequire(import.meta.url);
  const folder = dirname(dirname(dirname(require.resolve('@grpc/grpc-js'))));
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  assert.equal(version, TESTED, advice);
});

test('its own credentials have the methods that ours override', () => {
  const own = ChannelCredentials.createInsecure() as unknown as Record<
    string,
    (...args: unknown[]) => unknown
  >;
  for (const method of ['_isSecure', '_equals', '_createSecureConnector'])
    assert.equal(typeof own[method], 'function', `${method}: ${advice}`);
  const target = { scheme: 'dns', path: 'localhost:1' };
  const connector = own._createSecureConnector!(target, {}) as Record<string, unknown>;
  const ours = new AtlsCredentials({ verifiers: [], timeoutMs: 100 })._createSecureConnector(target, {});
  assert.deepEqual(Object.keys(ours).sort(), Object.keys(connector).sort(), advice);
});

test('a second connection is refused, and its socket closed', async () => {
  const server = createAtlsServer({ issuer: fakeIssuer(), onConnection: (socket) => socket.resume() });
  const { port } = await server.listen(0, HOST);
  const credentials = new AtlsCredentials({ verifiers: [fakeVerifier()], timeoutMs: 2000 });
  const connector = credentials._createSecureConnector({}, {});
  const first = await connector.connect(connectTcp(port, HOST));
  assert.equal(first.secure, true);
  assert.equal(credentials.peer?.verdict?.variant, 'fake');
  const raw = connectTcp(port, HOST);
  await assert.rejects(connector.connect(raw), { code: 'ERR_ATLS_ENDED' });
  assert.equal(raw.destroyed, true);
  first.socket.destroy();
  await server.close();
});

test('a socket that comes while the first handshake goes on is closed, and changes nothing', async () => {
  const server = createAtlsServer({
    issuer: fakeIssuer({ delayMs: 300 }),
    onConnection: (socket) => socket.resume(),
  });
  const { port } = await server.listen(0, HOST);
  const credentials = new AtlsCredentials({ verifiers: [fakeVerifier()], timeoutMs: 5000 });
  const connector = credentials._createSecureConnector({}, {});
  const first = connector.connect(connectTcp(port, HOST));
  const raw = connectTcp(port, HOST);
  await assert.rejects(connector.connect(raw), { code: 'ERR_ATLS_BUSY' });
  assert.equal(raw.destroyed, true);
  assert.equal(credentials.failure, undefined);
  assert.equal((await first).secure, true);
  assert.equal(credentials.peer?.verdict?.variant, 'fake');
  (await first).socket.destroy();
  await server.close();
});

test('a failed handshake is kept as the reason, and no second one tried', async () => {
  const server = createServer((socket) => socket.end('no TLS here'));
  server.listen(0, HOST);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const credentials = new AtlsCredentials({ verifiers: [fakeVerifier()], timeoutMs: 2000 });
  const connector = credentials._createSecureConnector({}, {});
  await assert.rejects(connector.connect(connectTcp(port, HOST)), { code: 'ERR_ATLS_HANDSHAKE' });
  await assert.rejects(connector.connect(connectTcp(port, HOST)), { code: 'ERR_ATLS_HANDSHAKE' });
  assert.equal(credentials.failure?.code, 'ERR_ATLS_HANDSHAKE');
  server.close();
});

test('credentials are equal to themselves alone, so that no channel shares a connection', () => {
  const one = new AtlsCredentials({ verifiers: [], timeoutMs: 1 });
  const other = new AtlsCredentials({ verifiers: [], timeoutMs: 1 });
  assert.equal(one._equals(one), true);
  assert.equal(one._equals(other), false);
});
