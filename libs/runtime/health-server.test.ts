import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { Counter, Registry } from 'prom-client';
import { serveHealth } from './health-server.ts';
import { boundConnections, HTTP_TIMES } from './http-places.ts';
import { createLogger } from './logger.ts';

test('health, readiness, metrics, and nothing else', async () => {
  const registry = new Registry();
  new Counter({ name: 'asterism_test_total', help: 'test', registers: [registry] }).inc(3);
  let missing: string | undefined = 'starting';
  let broken: string | undefined;
  const server = await serveHealth({
    port: 0,
    host: '127.0.0.1',
    registry,
    missing: () => missing,
    broken: () => broken,
  });
  const get = async (path: string) => {
    const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`);
    return [answer.status, await answer.text()] as const;
  };
  assert.deepEqual(await get('/healthz'), [200, 'ok\n']);
  assert.deepEqual(await get('/readyz'), [503, 'starting\n']);
  missing = undefined;
  assert.deepEqual(await get('/readyz'), [200, 'ready\n']);
  broken = 'the audit log cannot be written';
  assert.deepEqual(await get('/healthz'), [503, 'the audit log cannot be written\n']);
  assert.equal((await get('/'))[0], 404);
  const [status, metrics] = await get('/metrics?x=1');
  assert.equal(status, 200);
  assert.match(metrics, /^asterism_test_total 3$/m);
  assert.match(metrics, /^process_resident_memory_bytes /m);
  server.closeAllConnections();
  server.close();
});

async function healthy(port: number): Promise<void> {
  const answer = await fetch(`http://127.0.0.1:${port}/healthz`);
  assert.equal(await answer.text(), 'ok\n');
}

/** Connections that send `text` and wait. */
async function hold(port: number, count: number, text: string): Promise<Socket[]> {
  const sockets = Array.from({ length: count }, () => connect(port, '127.0.0.1'));
  for (const socket of sockets) {
    socket.on('error', () => {});
    socket.resume().write(text);
  }
  await Promise.all(sockets.map((socket) => (socket.connecting ? once(socket, 'connect') : undefined)));
  return sockets;
}

for (const [what, text] of [
  ['say nothing', ''],
  ['stop in the middle of a request', 'GET /healthz HTTP/1.1\r\nhost: x\r\nx-'],
  ['stop in the middle of a body', 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab'],
  ['have asked and stay', 'GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n'],
]) {
  test(`connections that ${what} do not keep the kubelet's probes out`, async () => {
    const server = await serveHealth({
      port: 0,
      host: '127.0.0.1',
      registry: new Registry(),
      missing: () => undefined,
    });
    const { port } = server.address() as AddressInfo;
    for (let round = 0; round < 3; round++) {
      const sockets = await hold(port, 64, text!);
      for (let i = 0; i < 5; i++) await healthy(port);
      for (const socket of sockets) socket.destroy();
    }
    server.closeAllConnections();
    server.close();
  });
}

test('a request that is not complete in time is ended', async () => {
  const server = createServer({ ...HTTP_TIMES, headersTimeout: 50, requestTimeout: 50 }, () => assert.fail());
  boundConnections(server, { max: 4, maxPerAddress: 4 });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const sockets = await hold((server.address() as AddressInfo).port, 4, 'GET / HTTP/1.1\r\n');
  await Promise.all(sockets.map((socket) => socket.closed || once(socket, 'close')));
  server.close();
});

test('a connection that waits for its answer is not given up for another', async () => {
  const waiting = Promise.withResolvers<void>();
  const server = createServer(HTTP_TIMES, async (_request, response) => {
    await waiting.promise;
    response.end('answer');
  });
  boundConnections(server, { max: 2, maxPerAddress: 2 });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const asked = fetch(`http://127.0.0.1:${port}/`);
  const arrived = once(server, 'request');
  await arrived;
  await hold(port, 10, '');
  waiting.resolve();
  assert.equal(await (await asked).text(), 'answer');
  server.closeAllConnections();
  server.close();
});

test('secrets do not reach the log, whatever carries them', () => {
  const lines: string[] = [];
  const log = createLogger({
    name: 'x',
    level: 'nonsense',
    destination: { write: (line) => lines.push(line) },
  });
  log.info({ token: 'TOPSECRET', request: { kmsUri: 'TOPSECRET', id: 7 } }, 'call');
  log.debug({}, 'not at this level');
  assert.equal(lines.length, 1);
  assert.doesNotMatch(lines[0]!, /TOPSECRET/);
  assert.equal(JSON.parse(lines[0]!).request.id, 7);
});
