import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Issuer, Verdict, Verifier } from '@asterism/attestation/types';
import { PolicyError } from '@asterism/errors/errors';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { connectAtls } from './client.ts';
import { createAtlsServer } from './server.ts';

// Which issuers and verifiers come to an agreement (key-vectors section 8).

const A = '1.3.9900.1';
const B = '1.3.9900.2';
const HOST = '127.0.0.1';

interface Side {
  readonly issuer?: Issuer;
  readonly verifiers?: readonly Verifier[];
}

interface Case {
  readonly name: string;
  readonly server: Side;
  readonly client: Side;
  /** Codes of the client's and the server's refusal. A client learns of the server's by a closed connection. */
  readonly clientRefuses?: string;
  readonly serverRefuses?: string;
}

const deny = fakeVerifier({ fail: new PolicyError('ERR_DENIED', 'denied by the test') });
const issuer = fakeIssuer();
const verifiers = [fakeVerifier()];
const both = [fakeVerifier({ oid: B }), fakeVerifier({ oid: A })];

const CASES: readonly Case[] = [
  { name: 'server to client', server: { issuer }, client: { verifiers } },
  { name: 'client to server', server: { verifiers }, client: { issuer } },
  { name: 'mutual', server: { issuer, verifiers }, client: { issuer, verifiers } },
  { name: 'nobody attests, nobody asks', server: {}, client: {} },
  { name: 'server attests, nobody asks', server: { issuer }, client: {} },
  { name: 'client could attest, nobody asks', server: { issuer }, client: { issuer, verifiers } },
  { name: 'several verifiers at the client', server: { issuer }, client: { verifiers: both } },
  { name: 'several verifiers at the server', server: { verifiers: both }, client: { issuer } },
  {
    name: 'unknown OID at the client',
    server: { issuer: fakeIssuer({ oid: B }) },
    client: { verifiers },
    clientRefuses: 'ERR_ATLS_UNKNOWN_VARIANT',
  },
  {
    name: 'unknown OID at the client, mutual',
    server: { issuer: fakeIssuer({ oid: B }), verifiers },
    client: { issuer, verifiers },
    clientRefuses: 'ERR_ATLS_UNKNOWN_VARIANT',
  },
  {
    name: 'unknown OID at the server',
    server: { verifiers },
    client: { issuer: fakeIssuer({ oid: B }) },
    serverRefuses: 'ERR_ATLS_UNKNOWN_VARIANT',
  },
  {
    name: 'server without evidence',
    server: {},
    client: { verifiers },
    clientRefuses: 'ERR_ATLS_NO_ATTESTATION',
  },
  {
    name: 'client without an issuer shows no certificate',
    server: { verifiers },
    client: {},
    serverRefuses: 'ERR_ATLS_NO_CERTIFICATE',
  },
  {
    name: 'the client denies',
    server: { issuer },
    client: { verifiers: [deny] },
    clientRefuses: 'ERR_DENIED',
  },
  {
    name: 'the client denies, mutual',
    server: { issuer, verifiers },
    client: { issuer, verifiers: [deny] },
    clientRefuses: 'ERR_DENIED',
  },
  {
    name: 'the server denies',
    server: { issuer, verifiers: [deny] },
    client: { issuer, verifiers },
    serverRefuses: 'ERR_DENIED',
  },
];

for (const { name, server: side, client, clientRefuses, serverRefuses } of CASES) {
  test(name, { timeout: 10_000 }, async () => {
    const outcome = Promise.withResolvers<Verdict | undefined>();
    outcome.promise.catch(() => {});
    const server = createAtlsServer({
      ...side,
      onConnection: (socket, peer) => {
        outcome.resolve(peer);
        socket.end('ready');
      },
      onRefused: outcome.reject,
    });
    const { port } = await server.listen(0, HOST);
    const connecting = connectAtls({
      host: HOST,
      port,
      timeoutMs: 5000,
      verifiers: client.verifiers ?? [],
      ...(client.issuer && { issuer: client.issuer }),
    });
    if (clientRefuses !== undefined) {
      await assert.rejects(connecting, { code: clientRefuses });
      await assert.rejects(outcome.promise);
    } else {
      const { socket, peer } = await connecting;
      assert.equal(peer?.variant, client.verifiers && 'fake');
      let text = '';
      socket.on('data', (chunk) => {
        text += chunk;
      });
      await new Promise((resolve) => socket.once('close', resolve));
      if (serverRefuses === undefined) {
        assert.equal(text, 'ready');
        assert.equal((await outcome.promise)?.variant, side.verifiers && 'fake');
      } else {
        assert.equal(text, '');
        await assert.rejects(outcome.promise, { code: serverRefuses });
      }
    }
    await server.close();
  });
}

test('15 servers, one set of client options, all at once', async () => {
  const options = { issuer: fakeIssuer({ machine: 'client' }), verifiers, timeoutMs: 10_000, host: HOST };
  await Promise.all(
    Array.from({ length: 15 }, async (_, i) => {
      const server = createAtlsServer({
        issuer: fakeIssuer({ machine: `server-${i}`, delayMs: i }),
        verifiers,
        onConnection: (socket) => socket.end(),
      });
      const { port } = await server.listen(0, HOST);
      const expected = await fakeKeyId(`server-${i}`);
      for (let n = 0; n < 4; n++) {
        const { socket, peer } = await connectAtls({ ...options, port });
        assert.equal(peer?.attestationKeyId, expected);
        socket.destroy();
      }
      await server.close();
    }),
  );
});

for (const mutual of [false, true]) {
  test(`100 clients of one server at once, ${mutual ? 'mutual' : 'one way'}`, async () => {
    const peers: (string | undefined)[] = [];
    const server = createAtlsServer({
      // Documents that differ in time and size: no handshake may get the certificate of another.
      issuer: {
        ...issuer,
        issue: (userData, nonce, signal) =>
          fakeIssuer({ delayMs: nonce[0]! % 7, length: 40 * nonce[1]! }).issue(userData, nonce, signal),
      },
      ...(mutual && { verifiers }),
      maxPending: 200,
      maxPendingPerAddress: 200,
      onConnection: (socket, peer) => {
        peers.push(peer?.attestationKeyId);
        socket.end();
      },
    });
    const { port } = await server.listen(0, HOST);
    await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        const own = fakeIssuer({ machine: `client-${i}`, length: 100 * i });
        const { socket, peer } = await connectAtls({
          host: HOST,
          port,
          verifiers,
          timeoutMs: 20_000,
          ...(mutual && { issuer: own }),
        });
        assert.equal(peer?.variant, 'fake');
        socket.resume();
        await new Promise((resolve) => socket.once('close', resolve));
      }),
    );
    assert.equal(new Set(peers).size, mutual ? 100 : 1);
    assert.equal(peers.length, 100);
    await server.close();
  });
}

async function fakeKeyId(machine: string): Promise<string> {
  const nonce = new Uint8Array(32);
  const document = await fakeIssuer({ machine }).issue(nonce, nonce);
  return (await fakeVerifier().verify(document, nonce)).attestationKeyId;
}
