import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect as connectTcp, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { makeCertificate } from '@asterism/atls/certificate';
import { pem } from '@asterism/atls/der';
import { newIdentity } from '@asterism/atls/identity';
import { ParseError, PolicyError, UnreachableError, VerificationError } from '@asterism/errors/errors';
import { peerAddress } from './connection-host.ts';
import { API as Init } from './gen/init_pb.ts';
import { API as Keys } from './gen/keyservice_pb.ts';
import type { Handlers } from './handlers.ts';
import { plainClient } from './plain-client.ts';
import { PlainGrpcServer } from './plain-server.ts';
import { StatusError } from './status.ts';
import { tlsClient } from './tls-client.ts';
import { TlsGrpcServer } from './tls-server.ts';

const HOST = '127.0.0.1';
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (value: string) => new TextEncoder().encode(value);

const keys: Handlers<typeof Keys> = {
  async getDataKey({ dataKeyId, length }, context) {
    switch (dataKeyId) {
      case 'token':
        return { dataKey: bytes(context.header('authorization') ?? 'none') };
      case 'large':
        return { dataKey: new Uint8Array(length) };
      case 'slow':
        await delay(length, undefined, { signal: context.signal });
        return { dataKey: bytes('done') };
      case 'parse':
        throw new ParseError('not a CSR');
      case 'false':
        throw new VerificationError('ERR_FALSE', 'false');
      case 'policy':
        throw new PolicyError('ERR_POLICY', 'no');
      case 'down':
        throw new UnreachableError('no KMS');
      case 'status':
        throw new StatusError('ALREADY_EXISTS', 'ERR_TWICE', 'twice');
      case 'escape':
        throw new StatusError(
          'NOT_FOUND',
          'ERR_X',
          `\x1b[2K\r\n\x1b[32m✓ verified\x1b[0m${'x'.repeat(9000)}`,
        );
      case 'bug':
        throw new TypeError('key 0123456789');
      default:
        return { dataKey: bytes(`${dataKeyId} ${context.peer.address}`) };
    }
  },
};

/** CA and serving certificate for key-service.test, PEM. */
function certificates(): { ca: string; cert: string; key: string } {
  const folder = mkdtempSync(join(tmpdir(), 'asterism-tls-'));
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  try {
    openssl(
      'req',
      '-x509',
      ...key,
      '-subj',
      '/CN=test CA',
      '-days',
      '2',
      '-keyout',
      'ca.key',
      '-out',
      'ca.pem',
    );
    const issued = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-addext', 'subjectAltName=DNS:key-service.test'];
    openssl(
      'req',
      '-x509',
      ...key,
      '-subj',
      '/CN=x',
      '-days',
      '2',
      ...issued,
      '-keyout',
      'own.key',
      '-out',
      'own.pem',
    );
    const read = (name: string) => readFileSync(join(folder, name), 'utf8');
    return { ca: read('ca.pem'), cert: read('own.pem'), key: read('own.key') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function plain(options: ConstructorParameters<typeof PlainGrpcServer>[0] = {}) {
  const server = new PlainGrpcServer(options);
  server.addService(Keys, keys);
  const { port } = await server.listen(0, HOST);
  return { server, port, client: plainClient(Keys, { host: HOST, port, callTimeoutMs: 3000 }) };
}

test('plain: a call, the peer’s address', async () => {
  const { server, client } = await plain();
  assert.equal(text((await client.getDataKey({ dataKeyId: 'a' })).dataKey), 'a 127.0.0.1');
  client.close();
  await server.stop(100);
});

test('TLS: the CA is checked, the name, the token of each call', async () => {
  const { ca, cert, key } = certificates();
  const server = new TlsGrpcServer({ cert, key });
  server.addService(Keys, keys);
  const { port } = await server.listen(0, HOST);
  const target = { host: HOST, port, ca, serverName: 'key-service.test', callTimeoutMs: 3000 };
  let n = 0;
  const client = tlsClient(Keys, { ...target, headers: async () => ({ authorization: `Bearer ${++n}` }) });
  assert.equal(text((await client.getDataKey({ dataKeyId: 'token' })).dataKey), 'Bearer 1');
  assert.equal(text((await client.getDataKey({ dataKeyId: 'token' })).dataKey), 'Bearer 2');
  client.close();
  const wrongName = tlsClient(Keys, { ...target, serverName: 'other.test' });
  await assert.rejects(wrongName.getDataKey({}), UnreachableError);
  wrongName.close();
  const foreign = certificates();
  const wrongCa = tlsClient(Keys, { ...target, ca: foreign.ca });
  await assert.rejects(wrongCa.getDataKey({}), UnreachableError);
  wrongCa.close();
  // Another certificate from now on.
  server.setCertificate(foreign.cert, foreign.key);
  const renewed = tlsClient(Keys, { ...target, ca: foreign.ca });
  await renewed.getDataKey({});
  renewed.close();
  await server.stop(100);
});

test('TLS: nothing below 1.3; connections that say nothing are closed', async () => {
  const identity = newIdentity();
  const cert = pem('CERTIFICATE', makeCertificate({ ...identity, now: Date.now() }));
  const server = new TlsGrpcServer({ cert, key: identity.privateKeyPem, handshakeTimeoutMs: 200 });
  const { port } = await server.listen(0, HOST);
  const old = connectTls({ host: HOST, port, maxVersion: 'TLSv1.2', rejectUnauthorized: false });
  await assert.rejects(once(old, 'secureConnect'));
  const silent = connectTcp(port, HOST);
  silent.on('error', () => {}).resume();
  await once(silent, 'close');
  await server.stop(100);
});

test('every kind of error has its status, in one place', async () => {
  const logged: unknown[] = [];
  const { server, client } = await plain({ log: { warn: () => {}, error: (fields) => logged.push(fields) } });
  for (const [id, status, code] of [
    ['parse', 'INVALID_ARGUMENT', 'ERR_PARSE'],
    ['false', 'UNAUTHENTICATED', 'ERR_FALSE'],
    ['policy', 'PERMISSION_DENIED', 'ERR_POLICY'],
    ['status', 'ALREADY_EXISTS', 'ERR_TWICE'],
    ['bug', 'INTERNAL', 'ERR_RPC_INTERNAL'],
  ]) {
    await assert.rejects(client.getDataKey({ dataKeyId: id! }), (error: StatusError) => {
      assert.ok(error instanceof StatusError);
      assert.equal(error.status, status);
      assert.equal(error.code, code);
      assert.doesNotMatch(error.message, /0123456789/);
      return true;
    });
  }
  await assert.rejects(client.getDataKey({ dataKeyId: 'down' }), UnreachableError);
  assert.equal(logged.length, 1);
  client.close();
  await server.stop(100);
});

test('a call ends at its deadline, at its signal, and the handler learns of both', async () => {
  const { server, client } = await plain();
  await assert.rejects(client.getDataKey({ dataKeyId: 'slow', length: 5000 }, { timeoutMs: 100 }), {
    code: 'ERR_DEADLINE',
  });
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 100);
  await assert.rejects(
    client.getDataKey({ dataKeyId: 'slow', length: 5000 }, { signal: controller.signal }),
    {
      code: 'ERR_RPC_CANCELLED',
    },
  );
  client.close();
  // The handlers have stopped, so stopping takes no grace.
  const started = performance.now();
  await server.stop(5000);
  assert.ok(performance.now() - started < 1000);
});

test('a signal that aborts while the headers are made is not lost', async () => {
  const { server, port } = await plain();
  const controller = new AbortController();
  const headers = async () => {
    controller.abort();
    return {};
  };
  const client = plainClient(Keys, { host: HOST, port, headers });
  const { signal } = controller;
  await assert.rejects(client.getDataKey({ dataKeyId: 'a' }, { signal }), { name: 'AbortError' });
  const streaming = plainClient(Init, { host: HOST, port, headers });
  const events = streaming.initStream({}, { signal })[Symbol.asyncIterator]();
  await assert.rejects(Promise.resolve(events.next()), { name: 'AbortError' });
  client.close();
  streaming.close();
  await server.stop(100);
});

test('what a peer says cannot draw on a terminal, nor fill it', async () => {
  const { server, client } = await plain();
  await assert.rejects(client.getDataKey({ dataKeyId: 'escape' }), (error: StatusError) => {
    const shown = `${error.message} ${(error.cause as Error).message}`;
    assert.match(shown, /✓ verified/);
    assert.doesNotMatch(shown, /[\p{Cc}]/u);
    assert.ok(shown.length < 5000);
    return true;
  });
  client.close();
  await server.stop(100);
});

test('messages above the limit are refused, either way', async () => {
  const { server, client } = await plain({ maxRequestBytes: 1000, maxResponseBytes: 1000 });
  await assert.rejects(client.getDataKey({ dataKeyId: 'x'.repeat(2000) }), (error: StatusError) => {
    assert.equal(error.status, 'RESOURCE_EXHAUSTED');
    return true;
  });
  await assert.rejects(client.getDataKey({ dataKeyId: 'large', length: 2000 }), (error: StatusError) => {
    assert.equal(error.status, 'RESOURCE_EXHAUSTED');
    return true;
  });
  await client.getDataKey({ dataKeyId: 'still here' });
  client.close();
  await server.stop(100);
});

test('stop: a running call ends well, a new one is refused; after the grace all is cut', async () => {
  const { server, client, port } = await plain();
  const running = client.getDataKey({ dataKeyId: 'slow', length: 300 });
  await delay(100);
  const stopping = server.stop(3000);
  assert.equal(text((await running).dataKey), 'done');
  await stopping;
  const late = plainClient(Keys, { host: HOST, port });
  await assert.rejects(late.getDataKey({}), UnreachableError);
  late.close();
  client.close();

  const other = await plain();
  const cut = other.client.getDataKey({ dataKeyId: 'slow', length: 60_000 }, { timeoutMs: 20_000 });
  cut.catch(() => {});
  await delay(100);
  const started = performance.now();
  await other.server.stop(200);
  assert.ok(performance.now() - started < 2000);
  await assert.rejects(cut);
  other.client.close();
});

test('connections without calls are closed; more than the limit are dropped', async () => {
  const { server, port } = await plain({ idleMs: 300, maxConnections: 10 });
  const sockets: Socket[] = Array.from({ length: 30 }, () => connectTcp(port, HOST));
  const started = performance.now();
  await Promise.all(
    sockets.map(async (socket) => {
      socket.on('error', () => {}).resume();
      if (!socket.closed) await once(socket, 'close');
    }),
  );
  assert.ok(performance.now() - started < 5000);
  await server.stop(100);
});

test('a stream: its reader may stop early, and the handler ends', async () => {
  const ended = Promise.withResolvers<number>();
  const server = new PlainGrpcServer();
  server.addService(Init, {
    init: async () => ({}),
    confirmInit: async () => ({}),
    async *initStream(_request, { signal }) {
      let sent = 0;
      try {
        for (; sent < 100_000 && !signal.aborted; sent++)
          yield { kind: { case: 'log', value: 'x'.repeat(1000) } };
      } finally {
        ended.resolve(sent);
      }
    },
  });
  const { port } = await server.listen(0, HOST);
  const client = plainClient(Init, { host: HOST, port });
  let seen = 0;
  for await (const event of client.initStream({})) {
    assert.equal(event.kind.case, 'log');
    if (++seen === 3) break;
  }
  // The flow of messages waits for the reader, so far fewer than all were made.
  assert.ok((await ended.promise) < 5000);
  client.close();
  await server.stop(100);
});

test('a service without one of its handlers is refused at once', () => {
  const server = new PlainGrpcServer();
  assert.throws(
    () => server.addService(Keys, {} as Handlers<typeof Keys>),
    /no handler for kms.API.getDataKey/,
  );
});

test('IPv4 addresses are the same on a dual-stack socket', () => {
  assert.equal(peerAddress('::ffff:10.77.1.2'), '10.77.1.2');
  assert.equal(peerAddress('fd00::1'), 'fd00::1');
  assert.equal(peerAddress(undefined), undefined);
});
