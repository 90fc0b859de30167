import type { AddressInfo } from 'node:net';
import type { ListenAt } from '@asterism/atls/listen';
import { type AtlsServer, type AtlsServerOptions, createAtlsServer } from '@asterism/atls/server';
import { AsterismError } from '@asterism/errors/errors';
import { ConnectionHost, peerAddress, type RpcLimits } from './connection-host.ts';
import { goAway } from './go-away.ts';
import type { Handlers } from './handlers.ts';
import type { AnyService } from './service.ts';
import type { RpcLog } from './status.ts';

export interface AtlsGrpcServerOptions
  extends RpcLimits,
    Omit<AtlsServerOptions, 'onConnection' | 'farewell' | 'alpn' | 'maxConnections'> {
  readonly log?: RpcLog;
}

/**
 * gRPC over aTLS. HTTP/2 sees a connection only after its peer was verified; handlers find the verdict of the very
 * connection in `context.peer.verdict`.
 */
export class AtlsGrpcServer {
  readonly #host: ConnectionHost;
  readonly #atls: AtlsServer;

  constructor(options: AtlsGrpcServerOptions) {
    const { log } = options;
    const host = new ConnectionHost(options, log);
    this.#host = host;
    this.#atls = createAtlsServer({
      ...options,
      // Those in the making and those being served have bounds of their own, and newcomers get in at both.
      maxConnections: Number.MAX_SAFE_INTEGER,
      onConnection: (socket, peer) => host.serve(socket, peer),
      onRefused: (err, remote) => {
        const address = peerAddress(remote) ?? remote;
        log?.warn({ err, address }, 'aTLS connection refused');
        options.onRefused?.(err, address);
      },
      farewell: (error) =>
        goAway(`evidence refused: ${error instanceof AsterismError ? error.code : 'ERR_ATLS'}`),
    });
  }

  addService<S extends AnyService>(desc: S, handlers: Handlers<S>): void {
    this.#host.addService(desc, handlers);
  }

  listen(at: ListenAt, host?: string): Promise<AddressInfo> {
    return this.#atls.listen(at, host);
  }

  /** Connections being served, and connections in the making. */
  get connections(): { readonly served: number; readonly pending: number } {
    return { served: this.#host.connections, pending: this.#atls.pending };
  }

  /** Stops listening, lets running calls end for at most `graceMs` milliseconds, then cuts the rest. */
  async stop(graceMs = 10_000): Promise<void> {
    const closed = this.#atls.close();
    await this.#host.stop(graceMs);
    await closed;
  }
}
