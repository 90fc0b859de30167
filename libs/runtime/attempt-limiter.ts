import { isIPv6 } from 'node:net';
import { BoundedCache } from '@asterism/bytes/bounded-cache';

export interface AttemptLimits {
  /** Wrong attempts of one caller before it must wait. */
  readonly freeAttempts: number;
  /** First wait in milliseconds; doubled with each further wrong attempt. */
  readonly firstWaitMs: number;
  /** Longest wait in milliseconds. */
  readonly maxWaitMs: number;
  /** Callers remembered; the one not seen for longest is forgotten. Default 10,000. */
  readonly maxCallers?: number;
  /** Milliseconds on a clock that never goes back. Default performance.now. */
  readonly now?: () => number;
}

interface Failures {
  readonly count: number;
  readonly blockedUntil: number;
}

/**
 * Makes guessing slow: after some wrong attempts none of the same caller is looked at until a wait is over. What one
 * caller does never keeps another out. A caller is an IPv4 address or an IPv6 network of 64 bits, which is what one
 * machine can take its addresses from.
 */
export class AttemptLimiter {
  readonly #limits: AttemptLimits;
  readonly #now: () => number;
  readonly #callers: BoundedCache<Failures>;

  constructor(limits: AttemptLimits) {
    this.#limits = limits;
    this.#now = limits.now ?? (() => performance.now());
    this.#callers = new BoundedCache(limits.maxCallers ?? 10_000);
  }

  /** Milliseconds until the next attempt from this address is looked at; 0 = now. */
  waitMs(address: string): number {
    const failures = this.#callers.get(callerOf(address));
    return failures === undefined ? 0 : Math.max(0, failures.blockedUntil - this.#now());
  }

  failed(address: string): void {
    const caller = callerOf(address);
    const count = (this.#callers.get(caller)?.count ?? 0) + 1;
    const { freeAttempts, firstWaitMs, maxWaitMs } = this.#limits;
    const doublings = Math.min(count - freeAttempts, 30);
    const wait = doublings < 0 ? 0 : Math.min(firstWaitMs * 2 ** doublings, maxWaitMs);
    this.#callers.set(caller, { count, blockedUntil: this.#now() + wait });
  }

  /** Forgets the earlier mistakes of this address. */
  succeeded(address: string): void {
    this.#callers.set(callerOf(address), { count: 0, blockedUntil: 0 });
  }
}

/** The name under which an address is counted. */
export function callerOf(address: string): string {
  const plain = address.replace(/%.*$/, '');
  if (!isIPv6(plain)) return plain;
  // The URL parser writes every form of an IPv6 address in the one of RFC 5952, where "::" stands for zeros.
  const [head = '', tail] = new URL(`http://[${plain}]`).hostname.slice(1, -1).split('::');
  const groups = head === '' ? [] : head.split(':');
  const behind = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = Array.from({ length: 8 - groups.length - behind.length }, () => '0');
  return `${[...groups, ...zeros, ...behind].slice(0, 4).join(':')}::/64`;
}
