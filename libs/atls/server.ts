import { constants } from 'node:crypto';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type SecureContext, type TLSSocket } from 'node:tls';
import type { Issuer, Verdict, Verifier } from '@asterism/attestation/types';
import { UnreachableError, VerificationError } from '@asterism/errors/errors';
import { IdentitySource } from './identity.ts';
import { issueCertificate } from './issuing.ts';
import { type ListenAt, listen } from './listen.ts';
import { newNonce, nonceCa, nonceFromText } from './nonce.ts';
import { type Pending, PendingConnections } from './pending.ts';
import { Semaphore } from './semaphore.ts';
import { ServerContexts } from './server-contexts.ts';
import { verifyPeer } from './verify-peer.ts';

export interface AtlsServerOptions {
  /** Makes this side's evidence. Without it the server shows a bare certificate (as a v2.6 JoinService does). */
  readonly issuer?: Issuer;
  /** Judge the clients' evidence. One or more make it mutual: a client without evidence is refused. */
  readonly verifiers?: readonly Verifier[];
  /** Milliseconds from the TCP connection to the verified peer. Default 10,000. */
  readonly handshakeTimeoutMs?: number;
  /** Connections not yet verified: overall (default 256) and of one address (default 64). */
  readonly maxPending?: number;
  readonly maxPendingPerAddress?: number;
  /** Documents issued at the same time. Default 8; a TPM makes one at a time anyway. Addresses that wait take turns. */
  readonly maxIssuing?: number;
  /** Asked before evidence is made for an address; throws where that asks too often. Default: nobody is refused. */
  readonly handshakes?: { take(address: string): void };
  /** Open connections, verified ones included. Default 1024; more are dropped. */
  readonly maxConnections?: number;
  /** Protocols offered by ALPN. Default h2. */
  readonly alpn?: readonly string[];
  /** Takes over a connection whose peer is verified. Nothing has been read from it and nothing written. */
  onConnection(socket: TLSSocket, peer: Verdict | undefined): void;
  /** Told of every connection that was closed before it got that far. For logs. */
  onRefused?(error: Error, address: string): void;
  /** Bytes to send to a peer whose evidence was refused, before the connection closes: the clean reason. */
  farewell?(error: Error): Uint8Array | undefined;
}

export interface AtlsServer {
  /** Listens. @throws UnreachableError when the address cannot be had */
  listen(at: ListenAt, host?: string): Promise<AddressInfo>;
  /** Stops listening and drops connections in the making; verified ones belong to `onConnection`. */
  close(): Promise<void>;
  /** Connections in the making. */
  readonly pending: number;
}

// No tickets and no renegotiation: a resumed session would skip the evidence.
const SECURE_OPTIONS = constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION;
const FAREWELL_MS = 1000;

/** TLS server whose certificate carries evidence made for the very handshake (wire-facts 1). */
export function createAtlsServer(options: AtlsServerOptions): AtlsServer {
  const { issuer, verifiers = [] } = options;
  const identities = new IdentitySource();
  const contexts = new ServerContexts();
  const issuing = new Semaphore(options.maxIssuing ?? 8);
  const nonces = new WeakMap<Socket, Uint8Array>();
  const pendings = new PendingConnections({
    timeoutMs: options.handshakeTimeoutMs ?? 10_000,
    max: options.maxPending ?? 256,
    maxPerAddress: options.maxPendingPerAddress ?? 64,
    givenUp: ({ address }, reason) => options.onRefused?.(reason, address),
  });

  function refuse(pending: Pending, error: Error): void {
    // One that was given up has been reported, and is destroyed.
    if (!pending.abort.signal.aborted) options.onRefused?.(error, pending.address);
    pendings.release(pending);
  }

  /** @returns makes the context; to be called right before OpenSSL takes it */
  async function prepare(socket: Socket, serverName: string, pending: Pending): Promise<() => SecureContext> {
    const { signal } = pending.abort;
    const clientNonce = nonceFromText(serverName);
    options.handshakes?.take(pending.address);
    const identity = identities.next();
    const certificate = await issuing.run(
      pending.address,
      () => issueCertificate(issuer, identity, clientNonce, signal),
      signal,
    );
    const ownNonce = newNonce();
    nonces.set(socket, ownNonce);
    if (verifiers.length === 0) return () => contexts.oneWay(identity, certificate);
    return () => contexts.mutual(identity, certificate, nonceCa(ownNonce));
  }

  // `this` is the TLS socket that asks. Never keyed by the server name: the peer chooses that.
  function chooseContext(
    this: unknown,
    serverName: string,
    done: (error: Error | null, context?: SecureContext) => void,
  ): void {
    const socket = this as TLSSocket;
    const pending = pendings.of(socket);
    if (pending === undefined) {
      done(new Error('the connection was given up'));
      return;
    }
    pending.greeted = true;
    prepare(socket, serverName, pending).then(
      (context) => done(null, context()),
      (error: Error) => {
        refuse(pending, error);
        done(error);
      },
    );
  }

  const tls = createTlsServer({
    SNICallback: chooseContext,
    requestCert: verifiers.length > 0,
    rejectUnauthorized: false,
    ca: [],
    ALPNProtocols: [...(options.alpn ?? ['h2'])],
    minVersion: 'TLSv1.2',
    secureOptions: SECURE_OPTIONS,
    // Later than our own, which ends the connection.
    handshakeTimeout: 2 * (options.handshakeTimeoutMs ?? 10_000),
  });

  tls.on('tlsClientError', (error, socket) => {
    // Node only reports: left alone, a slow handshake would still succeed later.
    socket.destroy();
    const pending = pendings.of(socket);
    if (pending !== undefined) refuse(pending, error);
  });

  async function admit(socket: TLSSocket, pending: Pending): Promise<void> {
    const ownNonce = nonces.get(socket);
    if (ownNonce === undefined || socket.isSessionReused())
      throw new VerificationError('ERR_ATLS_RESUMED', 'a resumed session shows no evidence and is refused');
    let peer: Verdict | undefined;
    if (verifiers.length > 0) {
      const { signal } = pending.abort;
      const shown = socket.getPeerX509Certificate();
      peer = await verifyPeer(shown, verifiers, ownNonce, Date.now(), signal);
    }
    if (socket.destroyed) throw new UnreachableError('the peer closed the connection before it was judged');
    pendings.release(pending);
    options.onConnection(socket, peer);
  }

  tls.on('secureConnection', (socket) => {
    socket.on('error', () => {});
    const pending = pendings.of(socket);
    if (pending === undefined) {
      socket.destroy();
      return;
    }
    admit(socket, pending).catch((error: Error) => {
      refuse(pending, error);
      const farewell = socket.destroyed ? undefined : options.farewell?.(error);
      if (farewell === undefined) {
        socket.destroy();
        return;
      }
      // What the peer sent is thrown away, so that closing does not reset the connection under the farewell.
      socket.resume();
      socket.end(farewell);
      setTimeout(() => socket.destroy(), FAREWELL_MS).unref();
    });
  });

  const listener = createServer({ noDelay: true }, (raw) => {
    raw.on('error', () => {});
    if (pendings.add(raw)) tls.emit('connection', raw);
  });
  listener.maxConnections = options.maxConnections ?? 1024;

  return {
    listen: (at, host) => listen(listener, at, host),
    close: () => {
      pendings.clear();
      return new Promise((resolve) => listener.close(() => resolve()));
    },
    get pending() {
      return pendings.size;
    },
  };
}
