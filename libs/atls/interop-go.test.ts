import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import type { Verdict } from '@asterism/attestation/types';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { buildGoPeer, GoServer, goClient } from '@asterism/testkit/go-peer';
import { connectAtls } from './client.ts';
import { createAtlsServer } from './server.ts';

const OID = '1.3.9900.1';
const LENGTHS = [0, 8 * 1024, 40 * 1024, 60_000];
const built = await buildGoPeer('atls-peer');
const program = 'program' in built ? built.program : '';
const options = { timeout: 60_000, ...('skip' in built ? { skip: built.skip } : {}) };

async function echoServer(mutual: boolean, length: number) {
  const peers: (Verdict | undefined)[] = [];
  const refused: Error[] = [];
  const server = createAtlsServer({
    issuer: fakeIssuer({ length }),
    ...(mutual && { verifiers: [fakeVerifier()] }),
    onConnection: (socket, peer) => {
      peers.push(peer);
      socket.pipe(socket);
    },
    onRefused: (error) => refused.push(error),
  });
  const { port } = await server.listen(0, '127.0.0.1');
  return { server, port, peers, refused };
}

async function exchange(socket: TLSSocket): Promise<string> {
  socket.write('hello from Node\n');
  const [data] = await once(socket, 'data');
  socket.destroy();
  return data.toString();
}

for (const tls of ['1.2', '1.3']) {
  for (const length of LENGTHS) {
    test(`Go client, TLS ${tls}, ${length} bytes, one way and mutual`, options, async () => {
      for (const mutual of [false, true]) {
        const { server, port, peers, refused } = await echoServer(mutual, length);
        const args = ['-address', `127.0.0.1:${port}`, '-validate', OID, '-tls', tls, '-length', `${length}`];
        const report = await goClient(program, mutual ? [...args, '-issue', OID] : args);
        assert.deepEqual(
          report,
          { version: `TLS ${tls}`, peer: 'machine', echo: 'hello from Go\n' },
          `${refused}`,
        );
        assert.equal(peers.length, 1);
        assert.equal(peers[0]?.variant, mutual ? 'fake' : undefined);
        await server.close();
      }
    });
  }
}

for (const curve of ['', 'P-256', 'P-521']) {
  test(
    `Go server with curves '${curve}' (a retry where it is not our first), one way and mutual`,
    options,
    async () => {
      for (const length of LENGTHS) {
        for (const mutual of [false, true]) {
          const args = ['-issue', OID, '-length', `${length}`, '-curve', curve];
          const server = await GoServer.start(program, mutual ? [...args, '-validate', OID] : args);
          const { socket, peer } = await connectAtls({
            host: '127.0.0.1',
            port: server.port,
            verifiers: [fakeVerifier()],
            timeoutMs: 5000,
            ...(mutual && { issuer: fakeIssuer({ length, machine: 'node' }) }),
          });
          assert.equal(peer?.variant, 'fake');
          assert.equal(await exchange(socket), 'hello from Node\n');
          const report = await server.next();
          const expected = { version: 'TLS 1.3', echo: 'hello from Node\n', ...(mutual && { peer: 'node' }) };
          assert.deepEqual(report, expected);
          server.stop();
        }
      }
    },
  );
}

test('Go server of TLS 1.2: one way works, mutual is refused', options, async () => {
  const server = await GoServer.start(program, ['-issue', OID, '-tls', '1.2']);
  const target = { host: '127.0.0.1', port: server.port, verifiers: [fakeVerifier()], timeoutMs: 5000 };
  const { socket } = await connectAtls(target);
  assert.equal(await exchange(socket), 'hello from Node\n');
  await assert.rejects(connectAtls({ ...target, issuer: fakeIssuer() }), { code: 'ERR_ATLS_HANDSHAKE' });
  server.stop();
});

test('false evidence of a Go server is refused in both modes', options, async () => {
  for (const [flag, code] of [
    ['-wrong-nonce', 'ERR_NONCE'],
    ['-wrong-key', 'ERR_ATLS_USER_DATA'],
  ] as const) {
    const server = await GoServer.start(program, ['-issue', OID, '-validate', OID, flag]);
    for (const issuer of [undefined, fakeIssuer()]) {
      const target = { host: '127.0.0.1', port: server.port, verifiers: [fakeVerifier()], timeoutMs: 5000 };
      // Without an issuer this Go server breaks the handshake off itself; only the mutual client judges it.
      const expected = issuer === undefined ? 'ERR_ATLS_HANDSHAKE' : code;
      await assert.rejects(
        connectAtls({ ...target, ...(issuer && { issuer }) }),
        (error: { code: string }) => {
          assert.ok([expected, code].includes(error.code), error.code);
          return true;
        },
      );
    }
    server.stop();
    const oneWay = await GoServer.start(program, ['-issue', OID, flag]);
    const target = { host: '127.0.0.1', port: oneWay.port, verifiers: [fakeVerifier()], timeoutMs: 5000 };
    await assert.rejects(connectAtls(target), { code });
    oneWay.stop();
  }
});

test('false evidence of a Go client is refused, and without evidence too', options, async () => {
  for (const [flags, code] of [
    [['-issue', OID, '-wrong-nonce'], 'ERR_NONCE'],
    [['-issue', OID, '-wrong-key'], 'ERR_ATLS_USER_DATA'],
    [['-issue', '1.3.9900.2'], 'ERR_ATLS_UNKNOWN_VARIANT'],
    [[], 'ERR_ATLS_NO_ATTESTATION'],
  ] as const) {
    const { server, port, peers, refused } = await echoServer(true, 0);
    const report = await goClient(program, ['-address', `127.0.0.1:${port}`, '-validate', OID, ...flags]);
    assert.notEqual(report.error, undefined);
    assert.equal(peers.length, 0);
    assert.equal((refused[0] as { code?: string }).code, code);
    await server.close();
  }
});

test('a Go client refuses a server with evidence for another nonce', options, async () => {
  const honest = fakeIssuer();
  const server = createAtlsServer({
    issuer: { ...honest, issue: (userData) => honest.issue(userData, new Uint8Array(32)) },
    onConnection: (socket) => socket.destroy(),
  });
  const { port } = await server.listen(0, '127.0.0.1');
  const report = await goClient(program, ['-address', `127.0.0.1:${port}`, '-validate', OID]);
  assert.match(report.error ?? '', /another nonce/);
  await server.close();
});
