import assert from 'node:assert/strict';
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { makeCertificate } from '@asterism/atls/certificate';
import { pem } from '@asterism/atls/der';
import { newIdentity } from '@asterism/atls/identity';
import { API as Keys } from './gen/keyservice_pb.ts';
import type { Handlers } from './handlers.ts';
import { plainClient } from './plain-client.ts';
import { PlainGrpcServer, type PlainGrpcServerOptions } from './plain-server.ts';
import { TlsGrpcServer } from './tls-server.ts';

const HOST = '127.0.0.1';
const PATH = '/kms.API/GetDataKey';
const HEADERS = { ':method': 'POST', ':path': PATH, 'content-type': 'application/grpc', te: 'trailers' };

async function serve(options: PlainGrpcServerOptions = {}) {
  let handled = 0;
  let largest = 0;
  const handlers: Handlers<typeof Keys> = {
    async getDataKey({ dataKeyId, length }, { signal }) {
      handled++;
      largest = Math.max(largest, dataKeyId.length);
      if (dataKeyId === 'slow') await delay(60_000, undefined, { signal });
      return { dataKey: new Uint8Array(length) };
    },
  };
  const server = new PlainGrpcServer(options);
  server.addService(Keys, handlers);
  const { port } = await server.listen(0, HOST);
  const ask = async (localPort = port) => {
    const client = plainClient(Keys, { host: HOST, port: localPort, callTimeoutMs: 20_000 });
    try {
      return await client.getDataKey({ dataKeyId: 'honest', length: 3 });
    } finally {
      client.close();
    }
  };
  return { server, port, ask, handled: () => handled, largest: () => largest };
}

function session(port: number, localAddress = HOST): ClientHttp2Session {
  const socket = connectTcp({ port, host: HOST, localAddress });
  const made = connect(`http://${HOST}:${port}`, { createConnection: () => socket });
  made.on('error', () => {});
  return made;
}

function call(on: ClientHttp2Session, headers: Record<string, string> = {}): ClientHttp2Stream {
  const stream = on.request({ ...HEADERS, ...headers }, { endStream: false });
  stream.on('error', () => {});
  return stream;
}

/** Length prefix of a message that claims `length` bytes. */
function prefix(length: number): Buffer {
  const bytes = Buffer.alloc(5);
  bytes.writeUInt32BE(length, 1);
  return bytes;
}

const closed = (what: ClientHttp2Stream | ClientHttp2Session | Socket) =>
  new Promise<void>((resolve) => {
    if (what.closed) resolve();
    else what.once('close', () => resolve());
  });

test('messages that are never finished: memory stays, the honest are served, no handler runs, all are ended', async () => {
  const { server, port, ask, handled } = await serve({
    maxRequestBytes: 256 * 1024,
    requestTimeoutMs: 1500,
    maxConcurrentCalls: 4,
  });
  await ask();
  const before = process.memoryUsage().rss;
  const sessions = Array.from({ length: 100 }, () => session(port));
  const streams = sessions.flatMap((each) => Array.from({ length: 16 }, () => call(each)));
  // One buffer for all: this process is the caller's too, whose memory is none of the server's.
  const part = Buffer.alloc(200 * 1024);
  for (const stream of streams) {
    stream.resume();
    stream.write(prefix(256 * 1024));
    stream.write(part);
  }
  for (let i = 0; i < 5; i++) {
    await ask();
    await delay(100);
  }
  assert.equal(handled(), 6);
  // 32 connections of one address with 4 calls of 256 KiB are 32 MiB; the other side's 64 KiB windows are in it too.
  const grown = (process.memoryUsage().rss - before) / 2 ** 20;
  assert.ok(grown < 400, `${Math.round(grown)} MiB`);
  while (sessions.some((each) => !each.closed) && streams.some(({ closed }) => !closed)) await delay(50);
  await ask();
  for (const each of sessions) each.destroy();
  await server.stop(100);
});

test('a message in crumbs is cut off; one in many pieces of a sensible size is not', async () => {
  const { server, port, handled, largest } = await serve({ maxRequestBytes: 16 * 1024 });
  const own = session(port);
  const crumbs = call(own);
  crumbs.write(prefix(10_000));
  while (!crumbs.closed) {
    await new Promise((resolve) => crumbs.write(Buffer.alloc(1), resolve));
    await delay(0);
  }
  assert.equal(crumbs.rstCode, constants.NGHTTP2_ENHANCE_YOUR_CALM);
  const pieces = call(own).resume();
  // GetDataKeyRequest: data_key_id (1) of 12,800 bytes.
  const message = Buffer.concat([Buffer.from([0x0a, 0x80, 0x64]), Buffer.alloc(12_800, 'x')]);
  pieces.write(prefix(message.length));
  for (let at = 0; at < message.length; at += 512) {
    await new Promise((resolve) => pieces.write(message.subarray(at, at + 512), resolve));
  }
  pieces.end();
  await closed(pieces);
  assert.equal(pieces.rstCode, constants.NGHTTP2_NO_ERROR);
  assert.deepEqual([handled(), largest()], [1, 12_800]);
  own.destroy();
  await server.stop(100);
});

test('a second message is not even looked at, nor a thousand empty ones', async () => {
  const { server, port, handled } = await serve();
  const own = session(port);
  const twice = call(own).resume();
  twice.end(Buffer.concat([prefix(0), prefix(0)]));
  const many = call(own).resume();
  many.write(Buffer.alloc(60_000));
  for (const stream of [twice, many]) {
    await closed(stream);
    assert.equal(stream.rstCode, constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }
  assert.equal(handled(), 0);
  own.destroy();
  await server.stop(100);
});

test('a refused message that its caller does not end, and an answer that is not taken, are ended in time', async () => {
  const { server, port, handled } = await serve({ maxRequestBytes: 1024, requestTimeoutMs: 200 });
  const own = session(port);
  const large = call(own).resume();
  large.write(prefix(1025));
  large.write(Buffer.alloc(100));
  await closed(large);

  const deaf = connect(`http://${HOST}:${port}`, { settings: { initialWindowSize: 0 } });
  deaf.on('error', () => {});
  const untaken = call(deaf);
  // length (2) = 100,000
  untaken.end(Buffer.concat([prefix(4), Buffer.from([0x10, 0xa0, 0x8d, 0x06])]));
  await closed(untaken);
  assert.equal(handled(), 1);
  own.destroy();
  deaf.destroy();
  await server.stop(100);
});

test('headers of more than 16 KiB are refused', async () => {
  const { server, port, ask, handled } = await serve();
  const own = session(port);
  const stream = call(
    own,
    Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`h${i}`, 'x'.repeat(1000)])),
  );
  stream.resume().end(prefix(0));
  await closed(stream);
  assert.notEqual(stream.rstCode, constants.NGHTTP2_NO_ERROR);
  assert.equal(handled(), 0);
  await ask();
  own.destroy();
  await server.stop(100);
});

test('one address holds its share of connections only, and not its neighbours’; the next caller gets in', async () => {
  const { server, port, ask } = await serve({ maxConnections: 8, maxConnectionsPerAddress: 4 });
  const sessions = Array.from({ length: 12 }, (_, i) => session(port, `127.0.0.${2 + (i % 2)}`));
  for (const each of sessions) call(each).write(prefix(10));
  while (sessions.filter((each) => !each.destroyed && !each.closed).length > 8) await delay(10);
  await ask();
  await ask();
  for (const each of sessions) each.destroy();
  await server.stop(100);
});

test('a connection with a handler at work is not given up; when all have one, newcomers are turned away', async () => {
  const { server, port, ask, handled } = await serve({ maxConnectionsPerAddress: 2 });
  const clients = Array.from({ length: 2 }, () =>
    plainClient(Keys, { host: HOST, port, callTimeoutMs: 20_000 }),
  );
  const controller = new AbortController();
  const { signal } = controller;
  const slow = clients.map((client) => client.getDataKey({ dataKeyId: 'slow', length: 3 }, { signal }));
  for (const each of slow) each.catch(() => {});
  while (handled() < 2) await delay(10);
  const late = session(port);
  await closed(late);
  controller.abort();
  await Promise.all(slow.map((each) => assert.rejects(each)));
  // A place is free when the server has noticed.
  while ((await ask().catch(() => undefined)) === undefined) await delay(20);
  for (const client of clients) client.close();
  await server.stop(100);
});

test('a connection ends at its age, also with a call that never gets complete', async () => {
  const { server, port } = await serve({ maxAgeMs: 200, requestTimeoutMs: 300 });
  const own = session(port);
  call(own).resume().write(prefix(10));
  await closed(own);
  await server.stop(100);
});

test('TLS: handshakes that stop are bounded for each address, and stopping does not wait for them', async () => {
  const identity = newIdentity();
  const cert = pem('CERTIFICATE', makeCertificate({ ...identity, now: Date.now() }));
  const server = new TlsGrpcServer({ cert, key: identity.privateKeyPem, handshakeTimeoutMs: 3_600_000 });
  const { port } = await server.listen(0, HOST);
  const silent = Array.from({ length: 80 }, () => connectTcp(port, HOST));
  let gone = 0;
  for (const socket of silent)
    socket
      .on('error', () => {})
      .once('close', () => gone++)
      .resume();
  while (gone < 16) await delay(10);
  assert.equal(gone, 16);
  await server.stop(3_600_000);
  await Promise.all(silent.map(closed));
});
