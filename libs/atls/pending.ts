import type { Socket } from 'node:net';
import { UnreachableError } from '@asterism/errors/errors';
import { timedOut } from './issuing.ts';
import { Places } from './places.ts';

/** A connection whose handshake or verification is not done. */
export class Pending {
  readonly raw: Socket;
  readonly address: string;
  readonly key: string;
  /** Aborts with the reason when the connection is given up. */
  readonly abort = new AbortController();
  /** Whether a whole ClientHello has come. Those that said nothing are the first to go. */
  greeted = false;

  constructor(raw: Socket) {
    this.raw = raw;
    this.address = raw.remoteAddress ?? 'unknown';
    this.key = keyOf(raw);
  }
}

export interface PendingLimits {
  /** Milliseconds from the TCP connection to the verified peer. */
  readonly timeoutMs: number;
  readonly max: number;
  readonly maxPerAddress: number;
  /** Told of each connection that was given up after it had begun to speak, or whose time ran out. */
  givenUp?(pending: Pending, reason: Error): void;
}

/**
 * The connections in the making, bounded in time and number. A newcomer that finds no room takes a place of the address
 * that holds the most ({@link Places}): of a connection that has not even sent a ClientHello where there is one, else of
 * the oldest. So neither connections that say nothing nor those that greet and stop can keep others out.
 */
export class PendingConnections {
  readonly #limits: PendingLimits;
  readonly #places: Places<Pending>;
  readonly #byKey = new Map<string, Pending>();
  readonly #timers = new Map<Pending, NodeJS.Timeout>();

  constructor(limits: PendingLimits) {
    this.#limits = limits;
    this.#places = new Places({
      max: limits.max,
      maxPerAddress: limits.maxPerAddress,
      rank: ({ greeted }) => (greeted ? 1 : 0),
      evict: (pending) => this.#giveUp(pending, () => new Error('made room for another connection')),
    });
  }

  get size(): number {
    return this.#timers.size;
  }

  /** @returns whether there is room; otherwise the socket has been destroyed */
  add(raw: Socket): boolean {
    const pending = new Pending(raw);
    if (raw.remoteAddress === undefined || !this.#places.add(pending)) {
      raw.destroy();
      return false;
    }
    const { timeoutMs } = this.#limits;
    const timer = setTimeout(
      () => this.#giveUp(pending, () => timedOut('the handshake', timeoutMs)),
      timeoutMs,
    );
    this.#timers.set(pending, timer);
    this.#byKey.set(pending.key, pending);
    raw.once('close', () => this.#giveUp(pending, () => new Error('the peer closed the connection')));
    return true;
  }

  /** The pending connection below a TLS socket. Undefined when it was given up. */
  of(socket: Socket): Pending | undefined {
    return this.#byKey.get(keyOf(socket));
  }

  /** Takes a connection out: it is verified, or done with. */
  release(pending: Pending): void {
    const timer = this.#timers.get(pending);
    if (timer === undefined) return;
    clearTimeout(timer);
    this.#timers.delete(pending);
    this.#places.delete(pending);
    // The same four-tuple may be in use again while the older connection is still being closed.
    if (this.#byKey.get(pending.key) === pending) this.#byKey.delete(pending.key);
  }

  /** Gives all of them up. */
  clear(): void {
    for (const pending of [...this.#timers.keys()])
      this.#giveUp(pending, () => new Error('the server closes'));
  }

  #giveUp(pending: Pending, reason: () => Error): void {
    if (!this.#timers.has(pending)) return;
    this.release(pending);
    const error = reason();
    pending.abort.abort(error);
    pending.raw.destroy();
    // Port scans, health checks and evicted silent connections are no news.
    if (pending.greeted || error instanceof UnreachableError) this.#limits.givenUp?.(pending, error);
  }
}

/** The four-tuple: the same for a TCP socket and the TLS socket over it, and unique among living connections. */
function keyOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort} ${socket.localAddress} ${socket.localPort}`;
}
