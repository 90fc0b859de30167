import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { KmsUnavailableError } from './errors.ts';

export interface RetryPolicy {
  /** How often one exchange is tried at most. */
  readonly tries: number;
  /** Milliseconds for all exchanges, their tries, and the waiting between them. */
  readonly deadlineMs: number;
  /** Who is waited for, in messages. Default: the KMS and the store. */
  readonly who?: string | undefined;
}

const FIRST_WAIT_MS = 200;
const MAX_WAIT_MS = 5_000;

/**
 * Exchanges with a KMS and a store under one deadline. One that they are too busy for is tried again after a while
 * (doubled each time, with jitter), or after the time that the other side named. Disposed when the last one is over.
 */
export class Retries implements Disposable {
  readonly #policy: RetryPolicy;
  readonly #signal: AbortSignal | undefined;
  readonly #ends: number;
  // Not AbortSignal.timeout and any: their timers and listeners would outlive the exchanges, ten thousands at a time.
  readonly #until = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #onAbort = () => this.#until.abort(this.#signal?.reason);

  constructor(policy: RetryPolicy, signal?: AbortSignal) {
    this.#policy = policy;
    this.#signal = signal;
    this.#ends = performance.now() + policy.deadlineMs;
    this.#timer = setTimeout(() => this.#until.abort(this.#late(undefined)), policy.deadlineMs);
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener('abort', this.#onAbort);
  }

  /**
   * @throws the error of the last try, also where the next one would be after the deadline
   * @throws KmsUnavailableError ERR_KMS_UNAVAILABLE at the deadline
   * @throws the signal's reason
   */
  async run<T>(exchange: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const until = this.#until.signal;
    let last: unknown;
    for (let tried = 1; ; tried++) {
      this.#signal?.throwIfAborted();
      if (until.aborted) throw this.#late(last);
      try {
        return await exchange(until);
      } catch (error) {
        this.#signal?.throwIfAborted();
        if (until.aborted) throw this.#late(last ?? error);
        if (!(error instanceof KmsUnavailableError) || tried >= this.#policy.tries) throw error;
        last = error;
        const wait = waitMs(tried, error.retryAfterMs);
        if (performance.now() + wait >= this.#ends) throw error;
        await delay(wait, undefined, { signal: until }).catch(() => {});
      }
    }
  }

  #late(cause: unknown): KmsUnavailableError {
    const { who = 'the KMS and the store', deadlineMs } = this.#policy;
    return new KmsUnavailableError(
      'ERR_KMS_UNAVAILABLE',
      `${who} did not do it in ${deadlineMs} ms: try again later`,
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
export async function withRetry<T>(
  exchange: (signal: AbortSignal) => Promise<T>,
  policy: RetryPolicy,
  signal?: AbortSignal,
): Promise<T> {
  using retries = new Retries(policy, signal);
  return await retries.run(exchange);
}
