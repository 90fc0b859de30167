export interface AttemptLimits {
  /** Wrong attempts before callers must wait. */
  readonly freeAttempts: number;
  /** First wait in milliseconds; doubled with each further wrong attempt. */
  readonly firstWaitMs: number;
  /** Longest wait in milliseconds: whoever knows the secret is kept out no longer. */
  readonly maxWaitMs: number;
  /** Milliseconds on a clock that never goes back. Default performance.now. */
  readonly now?: () => number;
}

/** Makes guessing slow: after some wrong attempts none is looked at until a wait is over. */
export class AttemptLimiter {
  readonly #limits: AttemptLimits;
  readonly #now: () => number;
  #failures = 0;
  #blockedUntil = Number.NEGATIVE_INFINITY;

  constructor(limits: AttemptLimits) {
    this.#limits = limits;
    this.#now = limits.now ?? (() => performance.now());
  }

  /** Milliseconds until the next attempt is looked at; 0 = now. */
  get waitMs(): number {
    return Math.max(0, this.#blockedUntil - this.#now());
  }

  failed(): void {
    this.#failures++;
    const { freeAttempts, firstWaitMs, maxWaitMs } = this.#limits;
    if (this.#failures < freeAttempts) return;
    const doublings = Math.min(this.#failures - freeAttempts, 30);
    this.#blockedUntil = this.#now() + Math.min(firstWaitMs * 2 ** doublings, maxWaitMs);
  }

  succeeded(): void {
    this.#failures = 0;
  }
}
