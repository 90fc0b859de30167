// What a hostile or broken API server does to whoever reads audit logs through it.
import assert from 'node:assert/strict';
import { createServer } from 'node:https';
import type { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { UnreachableError } from '@asterism/errors/errors';
import { testCa } from '@asterism/testkit/test-ca';
import type { AdminApi } from './admin-api.ts';
import { readClusterAudit } from './audit-logs.ts';

/** An API server that names one KeyService, and does this with who wants to run something in it. */
async function scene(t: TestContext, onUpgrade: (socket: Socket) => void) {
  const ca = await testCa();
  const serving = await ca.issue({ name: 'kubernetes', usage: 'server', addresses: ['127.0.0.1'] });
  const client = await ca.issue({ name: 'test-admin', usage: 'client' });
  const server = createServer({ cert: serving.certificate, key: serving.key });
  const sockets: Socket[] = [];
  server.on('upgrade', (_, socket: Socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    onUpgrade(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as { port: number };
  const data = (pem: string) => toBase64(toUtf8(pem));
  const kubeconfig = JSON.stringify({
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'x' },
    clusters: [
      {
        name: 'x',
        cluster: { server: `https://127.0.0.1:${port}`, 'certificate-authority-data': data(ca.pem) },
      },
    ],
    users: [
      {
        name: 'x',
        user: { 'client-certificate-data': data(client.certificate), 'client-key-data': data(client.key) },
      },
    ],
    contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
  });
  const pod = {
    metadata: { name: 'key-service-x' },
    spec: { nodeName: 'cp-0' },
    status: { phase: 'Running' },
  };
  const api = { call: async () => ({ items: [pod] }) } as unknown as AdminApi;
  return (signal: AbortSignal) =>
    readClusterAudit({ kubeconfig, api, signal, onStep: () => {}, onLine: () => {} });
}

test('a server that takes the connection and says nothing is given up when the user says so', async (t) => {
  const stop = new AbortController();
  const read = await scene(t, () => stop.abort(new Error('Ctrl-C')));
  await assert.rejects(read(stop.signal), (error: Error) => {
    assert.ok(error instanceof UnreachableError);
    assert.match(error.message, /key-service-x cannot be read: Error: Ctrl-C/);
    return true;
  });
});

test('a server that hangs up, or answers something else, is said to be unreachable', async (t) => {
  for (const answer of ['', 'HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n', 'nonsense\r\n\r\n']) {
    const read = await scene(t, (socket) => socket.end(answer));
    await assert.rejects(read(AbortSignal.timeout(30_000)), UnreachableError, answer);
  }
});

test('where no KeyService runs that is said', async () => {
  const api = { call: async () => ({ items: [] }) } as unknown as AdminApi;
  const read = readClusterAudit({
    ...{ kubeconfig: '', api, signal: new AbortController().signal },
    ...{ onStep: () => {}, onLine: () => {} },
  });
  await assert.rejects(read, { message: /no KeyService runs/ });
});
