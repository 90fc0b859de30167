import { constants, X509Certificate } from 'node:crypto';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, createSecureContext, type TLSSocket } from 'node:tls';
import type { Issuer, Verdict, Verifier } from '@asterism/attestation/types';
import { equal } from '@asterism/bytes/bytes';
import { AsterismError, UnreachableError, VerificationError } from '@asterism/errors/errors';
import { GateStream } from './gate/gate-stream.ts';
import type { ClientAuthentication, ServerFlight } from './gate/handshake-gate.ts';
import { IdentitySource } from './identity.ts';
import { issueCertificate, timedOut } from './issuing.ts';
import { newNonce, nonceFromName, nonceText } from './nonce.ts';
import { verifyPeer } from './verify-peer.ts';

export interface AtlsHandshakeOptions {
  /** Makes this side's evidence where the server asks for it. With it the connection is TLS 1.3 only. */
  readonly issuer?: Issuer;
  /** Judge the server's evidence. An empty list accepts any server: say so where you use it. */
  readonly verifiers: readonly Verifier[];
  /** Milliseconds for everything up to the verified peer. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  /** Protocols offered by ALPN. Default h2. */
  readonly alpn?: readonly string[];
}

export interface AtlsConnectOptions extends AtlsHandshakeOptions {
  readonly host: string;
  readonly port: number;
}

/** A connection whose server is verified. Nothing has been written to it. */
export interface AtlsConnection {
  readonly socket: TLSSocket;
  /** Undefined exactly when there were no verifiers. */
  readonly peer: Verdict | undefined;
}

/**
 * Connects and verifies the server's evidence before anything is sent.
 *
 * @throws VerificationError | PolicyError the evidence is false, or not what policy allows
 * @throws UnreachableError nothing answers, the handshake breaks, or it takes too long
 */
export function connectAtls(options: AtlsConnectOptions): Promise<AtlsConnection> {
  const { host, port } = options;
  const raw = connectTcp({ host, port, noDelay: true });
  const where = `${host}:${port}`;
  return within(raw, options, where, async (signal) => {
    await connected(raw, where);
    return shake(raw, options, where, signal);
  });
}

/** The same over a TCP connection that exists. The connection is destroyed when this throws. */
export function handshakeAtls(raw: Socket, options: AtlsHandshakeOptions): Promise<AtlsConnection> {
  const where = raw.remoteAddress === undefined ? 'the server' : `${raw.remoteAddress}:${raw.remotePort}`;
  return within(raw, options, where, (signal) => shake(raw, options, where, signal));
}

function shake(
  raw: Socket,
  options: AtlsHandshakeOptions,
  where: string,
  signal: AbortSignal,
): Promise<AtlsConnection> {
  return (options.issuer === undefined ? oneWay : mutual)(raw, options, where, signal);
}

function connected(raw: Socket, where: string): Promise<void> {
  return new Promise((resolve, reject) => {
    raw.once('connect', resolve);
    raw.once('error', (cause) =>
      reject(new UnreachableError(`cannot connect to ${where}: ${cause.message}`, { cause })),
    );
  });
}

// Shared by all connections of the process: contexts without a key, and short-lived key pairs.
const SECURE_OPTIONS = constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION;
const context = createSecureContext({
  ca: [],
  minVersion: 'TLSv1.2',
  secureOptions: SECURE_OPTIONS,
});
const identities = new IdentitySource();
const context13 = createSecureContext({ ca: [], minVersion: 'TLSv1.3', secureOptions: SECURE_OPTIONS });

/** The server shows evidence and asks for none: Node's own TLS, judged once the handshake is done. */
async function oneWay(
  raw: Socket,
  options: AtlsHandshakeOptions,
  where: string,
  signal: AbortSignal,
): Promise<AtlsConnection> {
  const nonce = newNonce();
  const socket = connectTls({
    socket: raw,
    secureContext: context,
    servername: nonceText(nonce),
    // The certificate is self-signed by design; verifyPeer judges it.
    rejectUnauthorized: false,
    ALPNProtocols: [...(options.alpn ?? ['h2'])],
  });
  await secured(socket, where);
  const shown = socket.getPeerX509Certificate();
  const peer = await verifyPeer(shown, options.verifiers, nonce, Date.now(), signal);
  return { socket, peer };
}

/**
 * The server may ask for evidence: TLS 1.3 through the gate, which judges the server, has the own evidence made, and
 * shows it once OpenSSL has found the server to hold its key.
 */
async function mutual(
  raw: Socket,
  options: AtlsHandshakeOptions,
  where: string,
  signal: AbortSignal,
): Promise<AtlsConnection> {
  const { issuer, verifiers } = options;
  const nonce = newNonce();
  let peer: Verdict | undefined;
  let judged: Uint8Array | undefined;

  async function judge({ certificate, request }: ServerFlight): Promise<ClientAuthentication | undefined> {
    peer = await verifyPeer(readable(certificate), verifiers, nonce, Date.now(), signal);
    judged = certificate;
    if (request === undefined) return undefined;
    const serverNonce = nonceOf(request.authorities);
    const identity = identities.next();
    return {
      certificate: await issueCertificate(issuer, identity, serverNonce, signal),
      privateKey: identity.privateKey,
    };
  }

  const shown = Promise.withResolvers<void>();
  const gate = new GateStream(raw, { judge, opened: shown.resolve, failed: shown.reject });
  const socket = connectTls({
    socket: gate,
    secureContext: context13,
    servername: nonceText(nonce),
    rejectUnauthorized: false,
    ALPNProtocols: [...(options.alpn ?? ['h2'])],
  });
  socket.on('keylog', (line) => gate.keyLog(line));
  await Promise.all([shown.promise, secured(socket, where)]);
  socket.removeAllListeners('keylog');
  const used = socket.getPeerX509Certificate()?.raw;
  if (used === undefined || judged === undefined || !equal(used, judged))
    throw new VerificationError(
      'ERR_ATLS_CERTIFICATE',
      'the certificate that was judged is not the one that the handshake used',
    );
  return { socket, peer };
}

/** @throws VerificationError when OpenSSL cannot read the certificate either */
function readable(der: Uint8Array): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch (cause) {
    throw new VerificationError('ERR_ATLS_CERTIFICATE', "the peer's certificate is malformed", { cause });
  }
}

function nonceOf(authorities: readonly Uint8Array[]): Uint8Array {
  const [only] = authorities;
  if (only === undefined || authorities.length !== 1)
    throw new VerificationError(
      'ERR_ATLS_NONCE',
      `the server names ${authorities.length} acceptable authorities; an aTLS server names one, its nonce`,
    );
  try {
    return nonceFromName(only);
  } catch (cause) {
    throw new VerificationError('ERR_ATLS_NONCE', `the server sent no nonce: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function secured(socket: TLSSocket, where: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let open = true;
    const failed = (cause?: Error) => {
      if (!open) return;
      open = false;
      reject(
        new UnreachableError(
          `the handshake with ${where} broke: ${cause?.message ?? 'the server closed the connection'}`,
          { cause, code: 'ERR_ATLS_HANDSHAKE' },
        ),
      );
    };
    // The listeners stay: a later error must not crash the process before the socket has a new owner.
    socket.on('error', failed);
    socket.once('close', () => failed());
    socket.once('secureConnect', () => {
      open = false;
      if (socket.isSessionReused())
        reject(
          new VerificationError('ERR_ATLS_RESUMED', 'the server resumed a session that was never offered'),
        );
      else resolve();
    });
  });
}

/**
 * Runs `work` until the time is out or the caller aborts. The socket is destroyed when this throws, so that whatever
 * `work` still waits for comes to an end.
 */
async function within(
  raw: Socket,
  { timeoutMs, signal: outer }: AtlsHandshakeOptions,
  where: string,
  work: (signal: AbortSignal) => Promise<AtlsConnection>,
): Promise<AtlsConnection> {
  raw.on('error', () => {});
  const controller = new AbortController();
  const given = Promise.withResolvers<never>();
  const giveUp = (reason: Error) => {
    controller.abort(reason);
    given.reject(reason);
  };
  const timer = setTimeout(() => giveUp(timedOut(`the handshake with ${where}`, timeoutMs)), timeoutMs);
  const stop = () =>
    giveUp(
      new UnreachableError(`the connection to ${where} was given up`, {
        cause: outer?.reason,
        code: 'ERR_ABORTED',
      }),
    );
  outer?.addEventListener('abort', stop, { once: true });
  if (outer?.aborted) stop();
  try {
    return await Promise.race([given.promise, work(controller.signal)]);
  } catch (error) {
    raw.destroy();
    throw error instanceof AsterismError
      ? error
      : new UnreachableError(`the handshake with ${where} failed: ${(error as Error).message}`, {
          cause: error,
        });
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener('abort', stop);
  }
}
