import type { Server as Listener, Socket } from 'node:net';
import type { Verdict } from '@asterism/attestation/types';
import { Server, ServerCredentials, type ServerOptions } from '@grpc/grpc-js';
import { type Handlers, implementation, type Peer } from './handlers.ts';
import { type AnyService, grpcService } from './service.ts';
import type { RpcLog } from './status.ts';

export interface RpcLimits {
  /** Largest message in bytes, either way. Default 4 MiB. */
  readonly maxMessageBytes?: number;
  /** Calls at the same time on one connection. Default 64. */
  readonly maxConcurrentCalls?: number;
  /** A connection without calls is closed after this many milliseconds. Default 5 minutes. */
  readonly idleMs?: number;
}

const KEEPALIVE_MS = 15_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
const MAX_HEADER_BYTES = 16 * 1024;

interface Service {
  readonly desc: AnyService;
  readonly handlers: Record<string, unknown>;
}

/**
 * Serves gRPC on connections that someone else accepted and judged.
 *
 * Each connection has a grpc-js Server of its own, so that handlers know their peer because they were made for it.
 * grpc-js tells a handler only the remote address of its call; looking a verdict up by address would mix up peers
 * behind one NAT or proxy when a port is used again.
 */
export class ConnectionHost {
  readonly #options: ServerOptions;
  readonly #log: RpcLog | undefined;
  readonly #services: {
    desc: AnyService;
    definition: ReturnType<typeof grpcService>;
    handlers: Service['handlers'];
  }[] = [];
  readonly #servers = new Map<Server, Socket>();
  #stopping = false;

  constructor(limits: RpcLimits, log: RpcLog | undefined) {
    this.#log = log;
    const maxMessageBytes = limits.maxMessageBytes ?? 4 * 1024 * 1024;
    this.#options = {
      'grpc.max_receive_message_length': maxMessageBytes,
      'grpc.max_send_message_length': maxMessageBytes,
      'grpc.max_concurrent_streams': limits.maxConcurrentCalls ?? 64,
      'grpc.max_connection_idle_ms': limits.idleMs ?? 5 * 60_000,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc.max_metadata_size': MAX_HEADER_BYTES,
      'grpc.enable_channelz': 0,
    };
  }

  /** Adds a service to all connections that come later. */
  addService<S extends AnyService>(desc: S, handlers: Handlers<S>): void {
    const untyped = handlers as Record<string, unknown>;
    // Fails now, not at the first connection, where a handler is missing.
    implementation(desc, untyped, { address: '', verdict: undefined }, undefined);
    this.#services.push({ desc, definition: grpcService(desc), handlers: untyped });
  }

  /** Serves one connection until it closes. */
  serve(socket: Socket, verdict: Verdict | undefined): void {
    const address = peerAddress(socket.remoteAddress);
    if (this.#stopping || socket.destroyed || address === undefined) {
      socket.destroy();
      return;
    }
    const peer: Peer = { address, verdict };
    const server = new Server(this.#options);
    for (const { desc, definition, handlers } of this.#services)
      server.addService(definition, implementation(desc, handlers, peer, this.#log));
    const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
    this.#servers.set(server, socket);
    socket.once('close', () => {
      this.#servers.delete(server);
      injector.destroy();
    });
    injector.injectConnection(socket);
  }

  /** Connections being served. */
  get connections(): number {
    return this.#servers.size;
  }

  /** Lets running calls end, for at most `graceMs` milliseconds; then cuts all connections. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    // Closed sockets are waited for, not tryShutdown's callback: Node 24 closes the sessions of an HTTP/2 server that
    // closes, and grpc-js takes a session that is closing for one that is closed.
    const stopped = [...this.#servers].map(
      ([server, socket]) =>
        new Promise<void>((resolve) => {
          socket.once('close', () => resolve());
          server.tryShutdown(() => {});
        }),
    );
    let timer: NodeJS.Timeout | undefined;
    const grace = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, graceMs);
    });
    await Promise.race([Promise.all(stopped), grace]);
    clearTimeout(timer);
    for (const [server, socket] of this.#servers) {
      server.forceShutdown();
      socket.destroy();
    }
    this.#servers.clear();
  }
}

/** IPv4 addresses as such, also where a dual-stack socket shows them as ::ffff:a.b.c.d. */
export function peerAddress(remote: string | undefined): string | undefined {
  return remote?.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/, '');
}

/** Stops listening, lets running calls end for at most `graceMs` milliseconds, then cuts the rest. */
export async function stopServing(listener: Listener, host: ConnectionHost, graceMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => listener.close(() => resolve()));
  await host.stop(graceMs);
  await closed;
}
