import type { Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type Holder, Places } from '@asterism/atls/places';

interface Guest extends Holder {
  readonly socket: Socket;
  readonly responses: Set<ServerResponse>;
}

/** Options of every HTTP server here: what a connection may keep waiting, looked at each second (Node: every 30). */
export const HTTP_TIMES = {
  headersTimeout: 5000,
  requestTimeout: 10_000,
  keepAliveTimeout: 1000,
  connectionsCheckingInterval: 1000,
} as const;

/**
 * Bounds the connections of an HTTP server so that those which ask nothing, or do not take their answer, keep nobody out:
 * a newcomer that finds no room takes the place of the oldest one that is not waiting for an answer ({@link Places}).
 */
export function boundConnections(
  server: Server,
  limits: { readonly max: number; readonly maxPerAddress: number },
): void {
  const guests = new WeakMap<Socket, Guest>();
  const places = new Places<Guest>({
    ...limits,
    rank: ({ responses }) => ([...responses].every((response) => response.writableEnded) ? 0 : undefined),
    evict: ({ socket }) => socket.destroy(),
  });
  server.on('connection', (socket: Socket) => {
    const guest: Guest = { socket, address: socket.remoteAddress ?? '', responses: new Set() };
    if (!places.add(guest)) {
      socket.destroy();
      return;
    }
    guests.set(socket, guest);
    socket.once('close', () => places.delete(guest));
  });
  server.on('request', ({ socket }, response) => {
    const responses = guests.get(socket)?.responses.add(response);
    response.once('close', () => responses?.delete(response));
  });
}
