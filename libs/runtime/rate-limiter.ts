import { BusyError } from '@asterism/errors/errors';

export interface RateLimits {
  /** Calls at once after a pause. */
  readonly burst: number;
  /** Calls a second in the long run. */
  readonly perSecond: number;
  /** Keys remembered; the one not seen for longest is forgotten. Default 10,000. */
  readonly maxKeys?: number;
  /** Milliseconds on a clock that never goes back. Default performance.now. */
  readonly now?: () => number;
}

/** aTLS handshakes of one address: each costs a quote, of which a TPM makes some 20 a second for everybody. */
export const HANDSHAKES: RateLimits = { burst: 40, perSecond: 10 };

/** A token bucket for each key. Only as many keys are remembered as memory may hold; a forgotten one starts full. */
export class RateLimiter {
  readonly #limits: RateLimits;
  readonly #now: () => number;
  readonly #buckets = new Map<string, { tokens: number; at: number }>();

  constructor(limits: RateLimits) {
    this.#limits = limits;
    this.#now = limits.now ?? (() => performance.now());
  }

  /** @throws BusyError ERR_RATE_LIMIT */
  take(key: string): void {
    const { burst, perSecond, maxKeys = 10_000 } = this.#limits;
    const now = this.#now();
    const bucket = this.#buckets.get(key) ?? { tokens: burst, at: now };
    const tokens = Math.min(burst, bucket.tokens + ((now - bucket.at) / 1000) * perSecond);
    // Order of insertion is order of last use.
    this.#buckets.delete(key);
    if (this.#buckets.size >= maxKeys) this.#buckets.delete(this.#buckets.keys().next().value!);
    this.#buckets.set(key, { tokens: tokens < 1 ? tokens : tokens - 1, at: now });
    if (tokens < 1) throw new BusyError('ERR_RATE_LIMIT', `${key} asks too often; try again later`);
  }
}
