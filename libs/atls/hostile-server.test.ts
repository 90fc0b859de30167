import assert from 'node:assert/strict';
import { sign } from 'node:crypto';
import { once } from 'node:events';
import {
  type AddressInfo,
  connect as connectTcp,
  createServer as createTcpServer,
  type Server,
  type Socket,
} from 'node:net';
import { type TestContext, test } from 'node:test';
import { createSecureContext, createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { UnreachableError, VerificationError } from '@asterism/errors/errors';
import { fakeDocument, fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { makeCertificate } from './certificate.ts';
import { type AtlsConnectOptions, connectAtls } from './client.ts';
import { contextTag, element, header, oid, pem, TAG } from './der.ts';
import { type Identity, newIdentity } from './identity.ts';
import { commonName, newNonce, nonceCa, nonceFromText } from './nonce.ts';
import { parseCertificate } from './parse-certificate.ts';
import { createAtlsServer } from './server.ts';

const HOST = '127.0.0.1';
const issuer = fakeIssuer();
const verifiers = [fakeVerifier()];
const identity = newIdentity();

interface HostileOptions extends TlsOptions {
  /** PEM of the acceptable authorities. Default: one, a nonce. */
  authorities?: string[];
  /** DER of the certificate for a client nonce. Default: the right one. */
  certificate?(nonce: Uint8Array): Uint8Array;
  key?: string;
}

function honest(nonce: Uint8Array, own: Identity = identity): Uint8Array {
  const document = fakeDocument(own.userData, nonce, { length: 2000 });
  return makeCertificate({ ...own, now: Date.now(), attestation: { oid: '1.3.9900.1', document } });
}

/** A TLS server that does what its options say, on documented API alone. */
async function hostile(t: TestContext, options: HostileOptions = {}): Promise<number> {
  const server = createTlsServer({
    requestCert: true,
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
    ...options,
    SNICallback: (name, done) =>
      done(
        null,
        createSecureContext({
          key: options.key ?? identity.privateKeyPem,
          cert: pem('CERTIFICATE', (options.certificate ?? honest)(nonceFromText(name))),
          ca: options.authorities ?? [nonceCa(newNonce())],
        }),
      ),
  });
  server.on('secureConnection', (socket) => socket.on('error', () => {}).pipe(socket));
  server.on('tlsClientError', (_error, socket) => socket.destroy());
  return listening(t, server);
}

async function listening(t: TestContext, server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => sockets.add(socket));
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  server.listen(0, HOST);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** A proxy that passes bytes on as `pass` says. */
async function proxy(
  t: TestContext,
  target: number,
  pass: (bytes: Buffer, to: Socket, fromServer: boolean) => void,
): Promise<number> {
  const server = createTcpServer((client) => {
    const upstream = connectTcp(target, HOST);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      from.setNoDelay();
      from.on('data', (bytes) => pass(bytes, to, from === upstream));
      from.on('error', () => {});
      from.once('close', () => to.destroy());
    }
  });
  return listening(t, server);
}

const mutual = (port: number, more: Partial<AtlsConnectOptions> = {}) =>
  connectAtls({ host: HOST, port, issuer, verifiers, timeoutMs: 5000, ...more });
const oneWay = (port: number) => connectAtls({ host: HOST, port, verifiers, timeoutMs: 5000 });

async function echo({ socket }: Awaited<ReturnType<typeof connectAtls>>): Promise<void> {
  socket.write('ping');
  const [answer] = await once(socket, 'data');
  assert.equal(`${answer}`, 'ping');
  socket.destroy();
}

for (const ciphers of ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256']) {
  test(`mutual with ${ciphers}`, async (t) => {
    await echo(await mutual(await hostile(t, { ciphers })));
  });
}

test('mutual after a HelloRetryRequest', async (t) => {
  for (const ecdhCurve of ['P-521', 'P-384', 'X448']) {
    let hellos = 0;
    const port = await hostile(t, { ecdhCurve });
    const between = await proxy(t, port, (bytes, to, fromServer) => {
      // A handshake record with a ClientHello in it.
      if (!fromServer)
        for (let at = 0; at < bytes.length; at += 5 + bytes.readUInt16BE(at + 3))
          if (bytes[at] === 22) hellos++;
      to.write(bytes);
    });
    const connection = await mutual(between);
    assert.equal(hellos, 2, `${ecdhCurve}: no retry was asked for`);
    connection.socket.destroy();
    await echo(await mutual(port));
  }
});

test('bytes come one by one, in both directions and both modes', { timeout: 60_000 }, async (t) => {
  const server = createAtlsServer({ issuer, verifiers, onConnection: (socket) => socket.pipe(socket) });
  t.after(() => server.close());
  const { port } = await server.listen(0, HOST);
  const plain = createAtlsServer({ issuer, onConnection: (socket) => socket.pipe(socket) });
  t.after(() => plain.close());
  const dribble = (bytes: Buffer, to: Socket) => {
    for (const byte of bytes) to.write(Uint8Array.of(byte));
  };
  await echo(await mutual(await proxy(t, port, dribble)));
  await echo(await oneWay(await proxy(t, (await plain.listen(0, HOST)).port, dribble)));
});

const FALSE_EVIDENCE: Record<string, [(nonce: Uint8Array) => Uint8Array, string]> = {
  'evidence of an earlier handshake': [() => honest(newNonce()), 'ERR_NONCE'],
  "another machine's evidence": [
    (nonce) => {
      const document = fakeDocument(newIdentity().userData, nonce);
      return makeCertificate({ ...identity, now: Date.now(), attestation: { oid: '1.3.9900.1', document } });
    },
    'ERR_ATLS_USER_DATA',
  ],
  'no evidence': [() => makeCertificate({ ...identity, now: Date.now() }), 'ERR_ATLS_NO_ATTESTATION'],
  'garbage for a document': [
    () =>
      makeCertificate({
        ...identity,
        now: Date.now(),
        attestation: { oid: '1.3.9900.1', document: new Uint8Array(1000).fill(0x80) },
      }),
    'ERR_EVIDENCE_FORM',
  ],
  'an old certificate': [
    (nonce) => {
      const document = fakeDocument(identity.userData, nonce);
      const now = Date.now() - 5 * 3600_000;
      return makeCertificate({ ...identity, now, attestation: { oid: '1.3.9900.1', document } });
    },
    'ERR_ATLS_CERTIFICATE_TIME',
  ],
};
for (const [what, [certificate, code]] of Object.entries(FALSE_EVIDENCE)) {
  test(`${what} is refused in both modes, before anything is sent`, async (t) => {
    let issued = 0;
    const counting = {
      ...issuer,
      issue: (...args: Parameters<typeof issuer.issue>) => {
        issued++;
        return issuer.issue(...args);
      },
    };
    const port = await hostile(t, { certificate });
    await assert.rejects(mutual(port, { issuer: counting }), (error: VerificationError) => {
      assert.ok(error instanceof VerificationError, `${error}`);
      assert.equal(error.code, code);
      return true;
    });
    assert.equal(issued, 0);
    await assert.rejects(oneWay(await hostile(t, { certificate, requestCert: false })), { code });
  });
}

/** A certificate that only its size is wrong with: signed, for the right nonce, with a document of `length` bytes. */
function large(nonce: Uint8Array, length: number): Uint8Array {
  const document = fakeDocument(identity.userData, nonce, { length });
  const small = makeCertificate({ ...identity, now: Date.now() });
  const { tbs } = parseCertificate(small);
  const extension = element(TAG.sequence, oid('1.3.9900.1'), element(TAG.octetString, document));
  const body = tbs.subarray(header(TAG.sequence, tbs.length - 4).length);
  const extended = element(TAG.sequence, body, element(contextTag(3), element(TAG.sequence, extension)));
  const signature = sign('sha256', extended, identity.privateKey);
  const algorithm = element(TAG.sequence, oid('1.2.840.10045.4.3.2'));
  return element(TAG.sequence, extended, algorithm, element(TAG.bitString, Uint8Array.of(0), signature));
}

test('a document of 60,000 bytes is judged, a larger one refused', async (t) => {
  const fits = await hostile(t, { certificate: (nonce) => large(nonce, 60_000) });
  await echo(await mutual(fits));
  const port = await hostile(t, { certificate: (nonce) => large(nonce, 60_001) });
  await assert.rejects(mutual(port), { code: 'ERR_ATLS_CERTIFICATE' });
  await assert.rejects(
    oneWay(await hostile(t, { certificate: (nonce) => large(nonce, 90_000), requestCert: false })),
    {
      code: 'ERR_ATLS_CERTIFICATE',
    },
  );
});

test('a server that names no authority, two, or one without a nonce, gets no evidence', async (t) => {
  const named = pem('CERTIFICATE', makeCertificate({ ...identity, now: Date.now() }));
  for (const authorities of [[], [nonceCa(newNonce()), nonceCa(newNonce())], [named]]) {
    const port = await hostile(t, { authorities });
    await assert.rejects(mutual(port), { code: 'ERR_ATLS_NONCE' });
  }
});

test('a server without the key of the certificate it shows is refused by TLS', async (t) => {
  const server = createAtlsServer({ issuer, verifiers, onConnection: (socket) => socket.destroy() });
  t.after(() => server.close());
  const { port } = await server.listen(0, HOST);
  // A byte of the CertificateVerify or Finished changed on the way: the last record of the flight.
  for (const back of [1, 60, 100]) {
    const between = await proxy(t, port, (bytes, to, fromServer) => {
      if (fromServer && bytes.length > back) bytes[bytes.length - back]! ^= 1;
      to.write(bytes);
    });
    await assert.rejects(mutual(between), UnreachableError);
    await assert.rejects(oneWay(between), UnreachableError);
  }
});

test('a flight that stops anywhere ends in an error, never in a connection', async (t) => {
  const port = await hostile(t);
  for (let stop = 0; stop < 2500; stop += 97) {
    const between = await proxy(t, port, (bytes, to, fromServer) => {
      if (fromServer) to.end(bytes.subarray(0, stop));
      else to.write(bytes);
    });
    await assert.rejects(mutual(between), UnreachableError, `${stop}`);
  }
});

test('a server of TLS 1.2 works one way and is refused in mutual mode', async (t) => {
  const port = await hostile(t, { maxVersion: 'TLSv1.2', requestCert: false });
  await echo(await oneWay(port));
  await assert.rejects(mutual(port), { code: 'ERR_ATLS_HANDSHAKE' });
});

test('a server that floods before the handshake is done is cut off', async (t) => {
  const flood = createTcpServer((socket) => {
    socket.on('error', () => {});
    // Records of an unfinished message, for ever.
    const record = Buffer.concat([Buffer.from('1603034000', 'hex'), Buffer.alloc(0x4000, 2)]);
    const more = () => {
      while (!socket.destroyed && socket.write(record));
    };
    socket.on('drain', more);
    more();
  });
  const port = await listening(t, flood);
  await assert.rejects(mutual(port), UnreachableError);
  await assert.rejects(oneWay(port), UnreachableError);
});

test('a server that answers with garbage, and one that answers nothing', async (t) => {
  const garbage = await listening(
    t,
    createTcpServer((socket) => socket.on('error', () => {}).write('HTTP/1.1 400 Bad Request\r\n\r\n')),
  );
  await assert.rejects(mutual(garbage), UnreachableError);
  await assert.rejects(oneWay(garbage), UnreachableError);
  const silent = await listening(
    t,
    createTcpServer((socket) => socket.on('error', () => {}).resume()),
  );
  await assert.rejects(mutual(silent, { timeoutMs: 200 }), { code: 'ERR_ATLS_TIMEOUT' });
});

test('the authorities are of the very name form that Go writes', () => {
  assert.match(Buffer.from(commonName('A')).toString('hex'), /^300c310a30080603550403130141$/);
});
