import type { Server as Listener, Socket } from 'node:net';
import { Places } from '@asterism/atls/places';
import type { Verdict } from '@asterism/attestation/types';
import { Server, ServerCredentials, type ServerOptions } from '@grpc/grpc-js';
import { type Handlers, implementation, type ServedConnection } from './handlers.ts';
import { requestGuard } from './request-guard.ts';
import { type AnyService, grpcService } from './service.ts';
import type { RpcLog } from './status.ts';

export interface RpcLimits {
  /** Largest request in bytes. Default 64 KiB; public services set what their messages need. */
  readonly maxRequestBytes?: number;
  /** Largest response in bytes. Default 4 MiB. */
  readonly maxResponseBytes?: number;
  /** Calls at the same time on one connection. Default 8. */
  readonly maxConcurrentCalls?: number;
  /** Milliseconds for a request to come, and for its answer to be taken. Default 10,000. */
  readonly requestTimeoutMs?: number;
  /** A connection without calls is closed after this many milliseconds. Default 5 minutes. */
  readonly idleMs?: number;
  /** A connection takes no more calls after this many milliseconds (give or take a tenth). Default 10 minutes. */
  readonly maxAgeMs?: number;
  /**
   * Connections that are served: overall (default 512) and of one address (default 32). A newcomer that finds no room
   * takes the place of the oldest one that has no handler running.
   */
  readonly maxConnections?: number;
  readonly maxConnectionsPerAddress?: number;
}

const KEEPALIVE_MS = 15_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;

interface Service {
  readonly desc: AnyService;
  readonly definition: ReturnType<typeof grpcService>;
  readonly handlers: Record<string, unknown>;
}

interface Connection extends ServedConnection {
  readonly address: string;
  readonly server: Server;
  readonly socket: Socket;
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
  readonly #services: Service[] = [];
  readonly #connections: Places<Connection>;
  #stopping = false;

  constructor(limits: RpcLimits, log: RpcLog | undefined) {
    this.#log = log;
    const { maxRequestBytes = 64 * 1024, requestTimeoutMs = 10_000 } = limits;
    this.#options = {
      'grpc.max_receive_message_length': maxRequestBytes,
      'grpc.max_send_message_length': limits.maxResponseBytes ?? 4 * 1024 * 1024,
      'grpc.max_concurrent_streams': limits.maxConcurrentCalls ?? 8,
      'grpc.max_connection_idle_ms': limits.idleMs ?? 5 * 60_000,
      // Without a grace of its own: calls that do not progress end by the guard, others with their handler.
      'grpc.max_connection_age_ms': limits.maxAgeMs ?? 10 * 60_000,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc.enable_channelz': 0,
      interceptors: [requestGuard({ maxRequestBytes, requestTimeoutMs })],
    };
    this.#connections = new Places({
      max: limits.maxConnections ?? 512,
      maxPerAddress: limits.maxConnectionsPerAddress ?? 32,
      rank: ({ running }) => (running === 0 ? 0 : undefined),
      evict: ({ socket }) => socket.destroy(),
    });
  }

  /** Adds a service to all connections that come later. */
  addService<S extends AnyService>(desc: S, handlers: Handlers<S>): void {
    const untyped = handlers as Record<string, unknown>;
    // Fails now, not at the first connection, where a handler is missing.
    implementation(desc, untyped, { peer: { address: '', verdict: undefined }, running: 0 }, undefined);
    this.#services.push({ desc, definition: grpcService(desc), handlers: untyped });
  }

  /** Serves one connection until it closes. */
  serve(socket: Socket, verdict: Verdict | undefined): void {
    const address = peerAddress(socket.remoteAddress);
    if (this.#stopping || socket.destroyed || address === undefined) {
      socket.destroy();
      return;
    }
    const server = new Server(this.#options);
    const connection: Connection = { peer: { address, verdict }, address, server, socket, running: 0 };
    if (!this.#connections.add(connection)) {
      socket.destroy();
      return;
    }
    for (const { desc, definition, handlers } of this.#services)
      server.addService(definition, implementation(desc, handlers, connection, this.#log));
    const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
    socket.once('close', () => {
      this.#connections.delete(connection);
      injector.destroy();
    });
    injector.injectConnection(socket);
  }

  /** Connections being served. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Lets running calls end, for at most `graceMs` milliseconds; then cuts all connections. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    // Closed sockets are waited for, not tryShutdown's callback: Node 24 closes the sessions of an HTTP/2 server that
    // closes, and grpc-js takes a session that is closing for one that is closed.
    const stopped = [...this.#connections].map(
      ({ server, socket }) =>
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
    for (const { server, socket } of this.#connections) {
      server.forceShutdown();
      socket.destroy();
    }
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
