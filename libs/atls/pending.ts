import type { Socket } from 'node:net';
import { UnreachableError } from '@asterism/errors/errors';
import { timedOut } from './issuing.ts';

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
 * The connections in the making, bounded in time and number. A newcomer that finds no room takes the place of the
 * oldest connection that has not even sent a ClientHello (of its own address, when that is what is full); when
 * there is none, the newcomer is closed. So connections that say nothing cannot keep others out.
 */
export class PendingConnections {
  readonly #limits: PendingLimits;
  readonly #byKey = new Map<string, Pending>();
  readonly #all = new Map<Pending, NodeJS.Timeout>();
  readonly #perAddress = new Map<string, number>();

  constructor(limits: PendingLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#all.size;
  }

  /** @returns whether there is room; otherwise the socket has been destroyed */
  add(raw: Socket): boolean {
    if (raw.remoteAddress === undefined) {
      raw.destroy();
      return false;
    }
    const pending = new Pending(raw);
    const { address } = pending;
    const { max, maxPerAddress, timeoutMs } = this.#limits;
    const fullHere = (this.#perAddress.get(address) ?? 0) >= maxPerAddress;
    if (fullHere || this.#all.size >= max) {
      const silent = this.#oldestSilent(fullHere ? address : undefined);
      if (silent === undefined) {
        raw.destroy();
        return false;
      }
      this.#giveUp(silent, () => new Error('made room for another connection'));
    }
    const timer = setTimeout(
      () => this.#giveUp(pending, () => timedOut('the handshake', timeoutMs)),
      timeoutMs,
    );
    this.#all.set(pending, timer);
    this.#byKey.set(pending.key, pending);
    this.#perAddress.set(address, (this.#perAddress.get(address) ?? 0) + 1);
    raw.once('close', () => this.#giveUp(pending, () => new Error('the peer closed the connection')));
    return true;
  }

  /** The pending connection below a TLS socket. Undefined when it was given up. */
  of(socket: Socket): Pending | undefined {
    return this.#byKey.get(keyOf(socket));
  }

  /** Takes a connection out: it is verified, or done with. */
  release(pending: Pending): void {
    const timer = this.#all.get(pending);
    if (timer === undefined) return;
    clearTimeout(timer);
    this.#all.delete(pending);
    // The same four-tuple may be in use again while the older connection is still being closed.
    if (this.#byKey.get(pending.key) === pending) this.#byKey.delete(pending.key);
    const left = (this.#perAddress.get(pending.address) ?? 1) - 1;
    if (left > 0) this.#perAddress.set(pending.address, left);
    else this.#perAddress.delete(pending.address);
  }

  /** Gives all of them up. */
  clear(): void {
    for (const pending of [...this.#all.keys()]) this.#giveUp(pending, () => new Error('the server closes'));
  }

  #giveUp(pending: Pending, reason: () => Error): void {
    if (!this.#all.has(pending)) return;
    this.release(pending);
    const error = reason();
    pending.abort.abort(error);
    pending.raw.destroy();
    // Port scans, health checks and evicted silent connections are no news.
    if (pending.greeted || error instanceof UnreachableError) this.#limits.givenUp?.(pending, error);
  }

  #oldestSilent(address: string | undefined): Pending | undefined {
    for (const pending of this.#all.keys()) {
      if (!pending.greeted && (address === undefined || pending.address === address)) return pending;
    }
    return undefined;
  }
}

/** The four-tuple: the same for a TCP socket and the TLS socket over it, and unique among living connections. */
function keyOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort} ${socket.localAddress} ${socket.localPort}`;
}
