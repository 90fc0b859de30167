import { AsterismError } from '@asterism/errors/errors';

export interface RateLimits {
  /** Calls at once after a pause. */
  readonly burst: number;
  /** Calls a second in the long run. */
  readonly perSecond: number;
  /** Keys remembered; the one not seen for longest is forgotten. Default 10,000. */
  readonly maxKeys?: number;
  /** Milliseconds on a clock that never goes back. */
  readonly now?: () => number;
}

/** A caller asked too often. Waiting helps. */
export class RateLimitError extends AsterismError {
  constructor(what: string) {
    super('ERR_RATE_LIMIT', `${what} asks too often; try again later`);
  }
}

/** A token bucket for each key. */
export class RateLimiter {
  readonly #limits: RateLimits;
  readonly #now: () => number;
  readonly #buckets = new Map<string, { tokens: number; at: number }>();

  constructor(limits: RateLimits) {
    this.#limits = limits;
    this.#now = limits.now ?? (() => performance.now());
  }

  /** @throws RateLimitError */
  take(key: string): void {
    const { burst, perSecond, maxKeys = 10_000 } = this.#limits;
    const now = this.#now();
    const bucket = this.#buckets.get(key) ?? { tokens: burst, at: now };
    const tokens = Math.min(burst, bucket.tokens + ((now - bucket.at) / 1000) * perSecond);
    // Order of insertion is order of last use.
    this.#buckets.delete(key);
    if (this.#buckets.size >= maxKeys) this.#buckets.delete(this.#buckets.keys().next().value!);
    this.#buckets.set(key, { tokens: tokens < 1 ? tokens : tokens - 1, at: now });
    if (tokens < 1) throw new RateLimitError(key);
  }
}
