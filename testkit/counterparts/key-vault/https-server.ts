import { once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { boundedText } from '@asterism/runtime/bounded-text';
import type { TestCa } from '../../test-ca.ts';

const MAX_BODY = 64 * 1024;

export interface Asked {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

export interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** JSON, unless it is text already. */
  readonly body?: unknown;
}

/** `hang`: no answer at all. A function writes what it wants to. */
export type Answering = Reply | 'hang' | ((response: ServerResponse) => void);

export interface TestServer {
  readonly port: number;
  readonly origin: string;
  /** As if it were killed: all connections break, and nobody listens. */
  kill(): Promise<void>;
  /** After {@link kill}: on the same port. */
  start(): Promise<void>;
}

/** A small HTTPS server on this machine, by default on loopback, with a certificate of `ca`. */
export async function httpsServer(
  ca: TestCa,
  answer: (asked: Asked) => Answering | Promise<Answering>,
  options: { readonly host?: string; readonly certificateOf?: string } = {},
): Promise<TestServer> {
  const { host = '127.0.0.1', certificateOf = host } = options;
  const own = await ca.issue({ name: 'localhost', usage: 'server', addresses: [certificateOf] });
  const server = createServer({ cert: own.certificate, key: own.key }, (request, response) => {
    void serve(request, response, answer);
  });
  const sockets = new Set<Duplex>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('tlsClientError', () => {});
  const listen = async (port: number) => {
    server.listen(port, host);
    await once(server, 'listening');
  };
  await listen(0);
  const { port } = server.address() as AddressInfo;
  return {
    port,
    origin: `https://${host}:${port}`,
    kill: () => kill(server, sockets),
    start: () => listen(port),
  };
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  answer: (asked: Asked) => Answering | Promise<Answering>,
): Promise<void> {
  try {
    const body = await boundedText(request, MAX_BODY);
    const url = new URL(request.url ?? '/', 'https://localhost');
    const reply = await answer({ method: request.method ?? '', url, headers: request.headers, body });
    if (reply === 'hang') return;
    if (typeof reply === 'function') return reply(response);
    const text = typeof reply.body === 'string' ? reply.body : JSON.stringify(reply.body ?? '');
    response.writeHead(reply.status, { 'content-type': 'application/json', ...reply.headers });
    response.end(text);
  } catch {
    response.destroy();
  }
}

async function kill(server: Server, sockets: ReadonlySet<Duplex>): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  for (const socket of sockets) socket.destroy();
  await closed;
}
