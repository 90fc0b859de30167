import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { KmsUnavailableError } from './errors.ts';

export interface RetryPolicy {
  /** How often one exchange is tried at most. */
  readonly tries: number;
  /** Milliseconds for all exchanges, their tries, and the waiting between them. */
  readonly deadlineMs: number;
}

const FIRST_WAIT_MS = 200;
const MAX_WAIT_MS = 5_000;

/**
 * Exchanges with a KMS and a store under one deadline. One that they are too busy for is tried again after a while
 * (doubled each time, with jitter), or after the time that the other side named.
 */
export class Retries {
  readonly #policy: RetryPolicy;
  readonly #signal: AbortSignal | undefined;
  readonly #ends: number;

  constructor(policy: RetryPolicy, signal?: AbortSignal) {
    this.#policy = policy;
    this.#signal = signal;
    this.#ends = performance.now() + policy.deadlineMs;
  }

  /**
   * @throws the error of the last try, also where the next one would be after the deadline
   * @throws KmsUnavailableError ERR_KMS_UNAVAILABLE at the deadline
   * @throws the signal's reason
   */
  async run<T>(exchange: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const signal = this.#signal;
    signal?.throwIfAborted();
    // Not AbortSignal.timeout and any: their timers and listeners would outlive the exchange, ten thousands at a time.
    const until = new AbortController();
    let last: unknown;
    const onAbort = () => until.abort(signal?.reason);
    const onDeadline = () => until.abort(this.#late(last));
    signal?.addEventListener('abort', onAbort, { once: true });
    const timer = setTimeout(onDeadline, Math.max(0, this.#ends - performance.now()));
    try {
      for (let tried = 1; ; tried++) {
        until.signal.throwIfAborted();
        try {
          return await exchange(until.signal);
        } catch (error) {
          signal?.throwIfAborted();
          if (until.signal.aborted) throw this.#late(last ?? error);
          if (!(error instanceof KmsUnavailableError) || tried >= this.#policy.tries) throw error;
          last = error;
          const wait = waitMs(tried, error.retryAfterMs);
          if (performance.now() + wait >= this.#ends) throw error;
          await delay(wait, undefined, { signal: until.signal }).catch(() => {});
        }
      }
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #late(cause: unknown): KmsUnavailableError {
    return new KmsUnavailableError(
      'ERR_KMS_UNAVAILABLE',
      `the KMS and the store did not do it in ${this.#policy.deadlineMs} ms: try again later`,
      { cause },
    );
  }
}

/** With jitter, so that those who were sent away together do not come back together. */
function waitMs(tried: number, askedMs: number | undefined): number {
  if (askedMs !== undefined) return askedMs + randomInt(FIRST_WAIT_MS);
  const backoff = Math.min(MAX_WAIT_MS, FIRST_WAIT_MS * 2 ** (tried - 1));
  return randomInt(backoff / 2, backoff + 1);
}

/** One exchange under a deadline of its own. @throws as {@link Retries.run} */
export function withRetry<T>(
  exchange: (signal: AbortSignal) => Promise<T>,
  policy: RetryPolicy,
  signal?: AbortSignal,
): Promise<T> {
  return new Retries(policy, signal).run(exchange);
}
