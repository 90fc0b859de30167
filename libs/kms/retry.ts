import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { KmsUnavailableError } from './errors.ts';

export interface RetryPolicy {
  /** How often it is tried at most. */
  readonly tries: number;
  /** Milliseconds for all tries and the waiting between them. */
  readonly deadlineMs: number;
}

const FIRST_WAIT_MS = 200;
const MAX_WAIT_MS = 10_000;

/**
 * Does work that a KMS or a store may be too busy for, again after a while (doubled each time, with jitter) or after
 * the time that the other side named. What it may not wait for any more, it throws.
 *
 * @throws the error of the last try; KmsUnavailableError ERR_KMS_UNAVAILABLE at the deadline; the signal's reason
 */
export async function withRetry<T>(
  work: (signal: AbortSignal) => Promise<T>,
  { tries, deadlineMs }: RetryPolicy,
  signal?: AbortSignal,
): Promise<T> {
  const deadline = AbortSignal.timeout(deadlineMs);
  const until = signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
  const started = performance.now();
  let last: unknown;
  for (let tried = 1; ; tried++) {
    try {
      return await work(until);
    } catch (error) {
      signal?.throwIfAborted();
      if (deadline.aborted) throw late(deadlineMs, last ?? error);
      if (!(error instanceof KmsUnavailableError) || tried >= tries) throw error;
      last = error;
      const backoff = Math.min(MAX_WAIT_MS, FIRST_WAIT_MS * 2 ** (tried - 1));
      const wait = Math.max(error.retryAfterMs ?? 0, randomInt(backoff / 2, backoff + 1));
      if (performance.now() - started + wait >= deadlineMs) throw error;
      await delay(wait, undefined, { signal: until }).catch(() => {});
      signal?.throwIfAborted();
    }
  }
}

function late(deadlineMs: number, cause: unknown): KmsUnavailableError {
  return new KmsUnavailableError(
    'ERR_KMS_UNAVAILABLE',
    `the KMS and the store did not do it in ${deadlineMs} ms: try again later`,
    { cause },
  );
}
