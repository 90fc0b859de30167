import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { connectAtls, handshakeAtls } from './client.ts';
import { newNonce, nonceText } from './nonce.ts';
import { type AtlsServerOptions, createAtlsServer } from './server.ts';

const HOST = '127.0.0.1';
const verifiers = [fakeVerifier()];

async function serve(options: Partial<AtlsServerOptions> = {}) {
  const refused: Error[] = [];
  let admitted = 0;
  const server = createAtlsServer({
    issuer: fakeIssuer(),
    onConnection: (socket) => {
      admitted++;
      socket.end();
    },
    onRefused: (error) => refused.push(error),
    ...options,
  });
  const { port } = await server.listen(0, HOST);
  return { server, port, refused, admitted: () => admitted };
}

async function closed(socket: Socket): Promise<void> {
  socket.on('error', () => {});
  socket.resume();
  if (!socket.closed) await once(socket, 'close');
}

test('500 connections that say nothing: the server answers others, holds few, and closes all', async () => {
  const { server, port, admitted } = await serve({ handshakeTimeoutMs: 4000, maxPending: 256 });
  const heap = process.memoryUsage().rss;
  const silent = Array.from({ length: 500 }, () => connectTcp(port, HOST));
  const gone = Promise.all(silent.map(closed));
  await Promise.all(silent.map((socket) => (socket.connecting ? once(socket, 'connect') : undefined)));
  assert.ok(server.pending <= 64, `${server.pending} pending of one address`);
  for (let i = 0; i < 20; i++) {
    // Each is served at once in principle; how long "at once" takes belongs to the machine and its load.
    const { socket } = await connectAtls({ host: HOST, port, verifiers, timeoutMs: 10_000 });
    await closed(socket);
  }
  assert.equal(admitted(), 20);
  await gone;
  assert.equal(server.pending, 0);
  assert.ok(process.memoryUsage().rss - heap < 128 * 2 ** 20);
  await server.close();
});

/** Sends a whole ClientHello with a nonce from the given address of this machine, and stops there. */
async function greetAndStop(port: number, localAddress: string): Promise<Socket> {
  const raw = connectTcp({ port, host: HOST, localAddress });
  raw.on('error', () => {});
  await once(raw, 'connect');
  const tls = connectTls({
    socket: new Deaf(raw),
    servername: nonceText(newNonce()),
    ALPNProtocols: ['h2'],
  });
  tls.on('error', () => {});
  return raw;
}

/** What TLS writes reaches the other end; what that answers does not come back. */
class Deaf extends Duplex {
  readonly #raw: Socket;
  constructor(raw: Socket) {
    super();
    this.#raw = raw.resume();
  }
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#raw.write(chunk, () => done());
  }
}

test('four addresses that greet and stop in every place there is: a fifth one is served', async () => {
  const { server, port } = await serve({
    handshakeTimeoutMs: 60_000,
    maxPending: 32,
    maxPendingPerAddress: 8,
  });
  const from = ['127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5'];
  const stopped = await Promise.all(
    Array.from({ length: 64 }, (_, i) => greetAndStop(port, from[i % from.length]!)),
  );
  while (server.pending < 32) await delay(10);
  for (let i = 0; i < 5; i++) {
    const { socket } = await connectAtls({ host: HOST, port, verifiers, timeoutMs: 10_000 });
    await closed(socket);
  }
  // One that shares an attacker's address (both behind a load balancer) too.
  for (const localAddress of from) {
    const raw = connectTcp({ port, host: HOST, localAddress });
    await once(raw, 'connect');
    const { socket } = await handshakeAtls(raw, { verifiers, timeoutMs: 10_000 });
    await closed(socket);
  }
  for (const socket of stopped) socket.destroy();
  await server.close();
});

test('an address that greets without end has no evidence made beyond its rate, and costs others nothing', async () => {
  let issued = 0;
  const fake = fakeIssuer();
  const { server, port, refused } = await serve({
    handshakes: new RateLimiter({ burst: 3, perSecond: 0.001 }),
    issuer: {
      ...fake,
      issue: (...args) => {
        issued++;
        return fake.issue(...args);
      },
    },
  });
  const stopped = await Promise.all(Array.from({ length: 20 }, () => greetAndStop(port, '127.0.0.2')));
  while (refused.length < 17) await delay(10);
  assert.equal(issued, 3);
  assert.ok(refused.every((error) => (error as { code?: string }).code === 'ERR_RATE_LIMIT'));
  const { socket } = await connectAtls({ host: HOST, port, verifiers, timeoutMs: 10_000 });
  await closed(socket);
  for (const each of stopped) each.destroy();
  await server.close();
});

test('a ClientHello that stops half way is closed in time', async () => {
  const { server, port, refused } = await serve({ handshakeTimeoutMs: 300 });
  const socket = connectTcp(port, HOST);
  socket.write(Buffer.from('1603010200010001fc0303', 'hex'));
  const started = performance.now();
  await closed(socket);
  assert.ok(performance.now() - started < 2000);
  assert.equal(server.pending, 0);
  assert.equal((refused[0] as { code?: string }).code, 'ERR_ATLS_TIMEOUT');
  await server.close();
});

test('garbage instead of TLS is closed at once', async () => {
  const { server, port } = await serve();
  const socket = connectTcp(port, HOST);
  socket.write('GET / HTTP/1.1\r\n\r\n');
  await closed(socket);
  await server.close();
});

test('a server name that is no nonce, and none at all, gets no certificate', async () => {
  const { server, port, admitted, refused } = await serve();
  for (const servername of ['localhost', 'A'.repeat(44), '']) {
    const socket = connectTls({
      host: HOST,
      port,
      servername,
      rejectUnauthorized: false,
      ALPNProtocols: ['h2'],
    });
    await assert.rejects(once(socket, 'secureConnect'));
  }
  assert.equal(admitted(), 0);
  assert.equal(refused.length, 3);
  assert.equal(server.pending, 0);
  await server.close();
});

test('an issuer that hangs does not keep connections: they end in time, and waiters with them', async () => {
  let issuing = 0;
  const { server, port } = await serve({
    handshakeTimeoutMs: 400,
    maxIssuing: 2,
    issuer: {
      ...fakeIssuer(),
      issue: () => {
        issuing++;
        return new Promise(() => {});
      },
    },
  });
  const target = { host: HOST, port, verifiers, timeoutMs: 3000 };
  const started = performance.now();
  const outcomes = await Promise.allSettled(Array.from({ length: 6 }, () => connectAtls(target)));
  assert.ok(outcomes.every(({ status }) => status === 'rejected'));
  assert.ok(performance.now() - started < 2500);
  // Two at a time, and a hung one gives its place back when its connection ends.
  assert.ok(issuing >= 2 && issuing <= 6, `${issuing}`);
  assert.equal(server.pending, 0);
  await server.close();
});

test('an issuer that is slow is waited for, and only so many documents are made at a time', async () => {
  let now = 0;
  let most = 0;
  const fake = fakeIssuer({ delayMs: 30 });
  const { server, port, admitted } = await serve({
    maxIssuing: 3,
    issuer: {
      ...fake,
      async issue(...args) {
        most = Math.max(most, ++now);
        const document = await fake.issue(...args);
        now--;
        return document;
      },
    },
  });
  const target = { host: HOST, port, verifiers, timeoutMs: 8000 };
  await Promise.all(Array.from({ length: 20 }, async () => closed((await connectAtls(target)).socket)));
  assert.equal(admitted(), 20);
  assert.equal(most, 3);
  await server.close();
});

test('an issuer that fails breaks the handshake, and the server goes on', async () => {
  let broken = true;
  const fake = fakeIssuer();
  const { server, port, refused } = await serve({
    issuer: {
      ...fake,
      issue: (...args) => (broken ? Promise.reject(new Error('no TPM')) : fake.issue(...args)),
    },
  });
  const target = { host: HOST, port, verifiers, timeoutMs: 3000 };
  await assert.rejects(connectAtls(target), { code: 'ERR_ATLS_HANDSHAKE' });
  assert.match(`${refused[0]}`, /no TPM/);
  broken = false;
  (await connectAtls(target)).socket.destroy();
  await server.close();
});

test('a verifier that hangs ends with the handshake', async () => {
  const { server, port, admitted, refused } = await serve({
    handshakeTimeoutMs: 300,
    verifiers: [{ ...fakeVerifier(), verify: () => new Promise(() => {}) }],
  });
  const { socket } = await connectAtls({
    host: HOST,
    port,
    verifiers,
    issuer: fakeIssuer(),
    timeoutMs: 3000,
  });
  await closed(socket);
  assert.equal(admitted(), 0);
  assert.equal((refused[0] as { code?: string }).code, 'ERR_ATLS_TIMEOUT');
  await server.close();
});

test("a client's evidence of an earlier handshake is refused", async () => {
  const { server, port, admitted, refused } = await serve({ verifiers });
  let earlier: Uint8Array | undefined;
  const fake = fakeIssuer();
  const replaying = {
    ...fake,
    async issue(userData: Uint8Array, nonce: Uint8Array) {
      earlier ??= await fake.issue(userData, nonce);
      return earlier;
    },
  };
  const target = { host: HOST, port, verifiers, issuer: replaying, timeoutMs: 3000 };
  await closed((await connectAtls(target)).socket);
  assert.equal(admitted(), 1);
  await closed((await connectAtls(target)).socket);
  assert.equal(admitted(), 1);
  assert.equal((refused[0] as { code?: string }).code, 'ERR_NONCE');
  await server.close();
});

for (const [what, document] of [
  ['garbage', new Uint8Array(500).fill(0xff)],
  ['empty', new Uint8Array(0)],
  ['a list nested 20,000 deep', new TextEncoder().encode('['.repeat(20_000))],
] as const) {
  test(`${what} for a document is refused`, async () => {
    const { server, port, admitted, refused } = await serve({ verifiers });
    const issuer = { ...fakeIssuer(), issue: async () => document };
    const { socket } = await connectAtls({ host: HOST, port, verifiers, issuer, timeoutMs: 3000 });
    await closed(socket);
    assert.equal(admitted(), 0);
    assert.equal((refused[0] as { code?: string }).code, 'ERR_EVIDENCE_FORM');
    await server.close();
  });
}

test('a refused client gets the farewell and nothing else', async () => {
  const { server, port } = await serve({
    verifiers: [fakeVerifier({ oid: '1.3.9900.2' })],
    farewell: (error) => new TextEncoder().encode(`bye ${error.name}`),
  });
  const { socket } = await connectAtls({
    host: HOST,
    port,
    verifiers,
    issuer: fakeIssuer(),
    timeoutMs: 3000,
  });
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  await closed(socket);
  assert.equal(text, 'bye VerificationError');
  await server.close();
});

test('a client that gives up: the signal, and the time', async () => {
  const { server, port } = await serve({ issuer: fakeIssuer({ delayMs: 5000 }) });
  const controller = new AbortController();
  const target = { host: HOST, port, verifiers };
  setTimeout(() => controller.abort(), 100);
  await assert.rejects(connectAtls({ ...target, timeoutMs: 4000, signal: controller.signal }), {
    code: 'ERR_ABORTED',
  });
  await assert.rejects(connectAtls({ ...target, timeoutMs: 100 }), { code: 'ERR_ATLS_TIMEOUT' });
  await assert.rejects(connectAtls({ ...target, timeoutMs: 100, issuer: fakeIssuer() }), {
    code: 'ERR_ATLS_TIMEOUT',
  });
  await delay(100);
  assert.equal(server.pending, 0);
  await server.close();
});
