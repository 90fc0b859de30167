import { type AddressInfo, createServer, type Server } from 'node:net';
import { listen } from '@asterism/atls/listen';
import { ConnectionHost, type RpcLimits, stopServing } from './connection-host.ts';
import type { Handlers } from './handlers.ts';
import type { AnyService } from './service.ts';
import type { RpcLog } from './status.ts';

export interface PlainGrpcServerOptions extends RpcLimits {
  readonly log?: RpcLog;
}

/** gRPC without TLS: for what is public, or signed in itself. */
export class PlainGrpcServer {
  readonly #host: ConnectionHost;
  readonly #listener: Server;

  constructor(options: PlainGrpcServerOptions = {}) {
    const host = new ConnectionHost(options, options.log);
    this.#host = host;
    this.#listener = createServer({ noDelay: true }, (socket) => {
      socket.on('error', () => {});
      host.serve(socket, undefined);
    });
  }

  addService<S extends AnyService>(desc: S, handlers: Handlers<S>): void {
    this.#host.addService(desc, handlers);
  }

  listen(port: number, host?: string): Promise<AddressInfo> {
    return listen(this.#listener, port, host);
  }

  stop(graceMs = 10_000): Promise<void> {
    return stopServing(this.#listener, this.#host, graceMs);
  }
}
