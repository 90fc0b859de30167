import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { connect, createSecureContext, createServer, type Server } from 'node:tls';
import { makeCertificate } from '@asterism/atls/certificate';
import { connectAtls } from '@asterism/atls/client';
import { pem } from '@asterism/atls/der';
import { newIdentity } from '@asterism/atls/identity';
import { createAtlsServer } from '@asterism/atls/server';
import type { Issuer, Verifier } from '@asterism/attestation/types';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';

/** One way to make handshakes, both ends in this process. */
export interface HandshakeKind {
  readonly name: string;
  /** One whole handshake, as the client sees it. */
  handshake(): Promise<void>;
  /** Handshakes that the server has finished. */
  finished(): number;
  close(): void;
}

const HOST = '127.0.0.1';

/** TLS 1.3 as Node makes it at its fastest: static P-256 certificates, one context per side. */
export async function plain(mutual: boolean): Promise<HandshakeKind> {
  const { privateKey, privateKeyPem: key, spki } = newIdentity();
  const cert = pem('CERTIFICATE', makeCertificate({ privateKey, spki, now: Date.now() }));
  let finished = 0;
  const server: Server = createServer({
    key,
    cert,
    ca: cert,
    minVersion: 'TLSv1.3',
    requestCert: mutual,
    rejectUnauthorized: mutual,
  });
  server.on('secureConnection', (socket) => {
    finished++;
    socket.on('error', () => {}).resume();
  });
  server.listen(0, HOST);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const secureContext = createSecureContext({
    ca: cert,
    minVersion: 'TLSv1.3',
    ...(mutual && { key, cert }),
  });
  return {
    name: mutual ? 'plain mutual TLS 1.3' : 'plain TLS 1.3',
    async handshake() {
      const socket = connect({ host: HOST, port, secureContext, checkServerIdentity: () => undefined });
      await once(socket, 'secureConnect');
      socket.resume().end();
    },
    finished: () => finished,
    close: () => server.close(),
  };
}

/** What an aTLS peer shows and accepts. */
export interface Evidence {
  readonly what: string;
  readonly issuer: Issuer;
  readonly verifier: Verifier;
}

/** Documents of `length` bytes that cost nothing to make or judge: what is left is aTLS itself. */
export const madeUp = (length: number): Evidence => ({
  what: `${length / 1024} KiB`,
  issuer: fakeIssuer({ length }),
  verifier: fakeVerifier(),
});

export async function attested(
  mutual: boolean,
  { what, issuer, verifier }: Evidence,
): Promise<HandshakeKind> {
  const verifiers = [verifier];
  let finished = 0;
  const server = createAtlsServer({
    issuer,
    ...(mutual && { verifiers }),
    onConnection(socket) {
      finished++;
      // The server ends it: a client that went at once would be gone before a server that judges it has done so.
      socket.resume().end();
    },
  });
  const { port } = await server.listen(0, HOST);
  return {
    name: `${mutual ? 'mutually attested' : 'server-attested'}, ${what}`,
    async handshake() {
      const { socket } = await connectAtls({
        host: HOST,
        port,
        verifiers,
        timeoutMs: 10_000,
        ...(mutual && { issuer }),
      });
      socket.resume();
    },
    finished: () => finished,
    close: () => void server.close(),
  };
}

export interface Round {
  readonly perSecond: number;
  /** Microseconds of processor time per handshake, both ends, all threads: less shaken by other programs. */
  readonly cpu: number;
}

/** `count` handshakes, `inFlight` at a time, until both ends are done. */
export async function measure(kind: HandshakeKind, count: number, inFlight: number): Promise<Round> {
  const before = kind.finished();
  const usage = process.cpuUsage();
  const started = performance.now();
  let left = count;
  const worker = async () => {
    while (left-- > 0) await kind.handshake();
  };
  await Promise.all(Array.from({ length: inFlight }, worker));
  const limit = performance.now() + 5000;
  while (kind.finished() - before < count) {
    if (performance.now() > limit) throw new Error(`${kind.name}: the server finished fewer than ${count}`);
    await new Promise(setImmediate);
  }
  const { user, system } = process.cpuUsage(usage);
  return { perSecond: (1000 * count) / (performance.now() - started), cpu: (user + system) / count };
}
