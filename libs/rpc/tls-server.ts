import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:tls';
import { listen } from '@asterism/atls/listen';
import { PendingConnections } from '@asterism/atls/pending';
import { ConnectionHost, stopServing } from './connection-host.ts';
import type { Handlers } from './handlers.ts';
import type { PlainGrpcServerOptions } from './plain-server.ts';
import type { AnyService } from './service.ts';

export interface TlsGrpcServerOptions extends PlainGrpcServerOptions {
  /** PEM of the serving certificate (and chain) and of its private key. */
  readonly cert: string;
  readonly key: string;
  /** Milliseconds for a handshake. Default 10,000. */
  readonly handshakeTimeoutMs?: number;
}

/** gRPC over TLS 1.3 with a serving certificate: inside the cluster. Callers show who they are by other means. */
export class TlsGrpcServer {
  readonly #host: ConnectionHost;
  readonly #listener: Server;
  readonly #tls: TlsServer;
  readonly #pendings: PendingConnections;

  constructor(options: TlsGrpcServerOptions) {
    const host = new ConnectionHost(options, options.log);
    this.#host = host;
    const timeoutMs = options.handshakeTimeoutMs ?? 10_000;
    const pendings = new PendingConnections({ timeoutMs, max: 256, maxPerAddress: 64 });
    this.#pendings = pendings;
    const release = (socket: Socket) => {
      const pending = pendings.of(socket);
      if (pending !== undefined) pendings.release(pending);
      return pending !== undefined;
    };
    this.#tls = createTlsServer({
      cert: options.cert,
      key: options.key,
      minVersion: 'TLSv1.3',
      ALPNProtocols: ['h2'],
      handshakeTimeout: timeoutMs,
    });
    this.#tls.on('tlsClientError', (err, socket) => {
      release(socket);
      options.log?.warn({ err, address: socket.remoteAddress }, 'TLS handshake failed');
      socket.destroy();
    });
    this.#tls.on('secureConnection', (socket) => {
      socket.on('error', () => {});
      if (release(socket)) host.serve(socket, undefined);
      else socket.destroy();
    });
    this.#listener = createServer({ noDelay: true }, (raw) => {
      raw.on('error', () => {});
      if (pendings.add(raw)) this.#tls.emit('connection', raw);
    });
  }

  /** Serves another certificate to connections that come later (PEM). */
  setCertificate(cert: string, key: string): void {
    this.#tls.setSecureContext({ cert, key, minVersion: 'TLSv1.3' });
  }

  addService<S extends AnyService>(desc: S, handlers: Handlers<S>): void {
    this.#host.addService(desc, handlers);
  }

  listen(port: number, host?: string): Promise<AddressInfo> {
    return listen(this.#listener, port, host);
  }

  stop(graceMs = 10_000): Promise<void> {
    this.#pendings.clear();
    return stopServing(this.#listener, this.#host, graceMs);
  }
}
