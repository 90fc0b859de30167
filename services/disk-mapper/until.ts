import { setTimeout as sleep } from 'node:timers/promises';

const FIRST_WAIT_MS = 250;
const MAX_WAIT_MS = 10_000;

/**
 * Tries until it works. The waits between are doubled, up to 10 s.
 * @throws the signal's reason, when it aborts
 */
export async function untilItWorks<T>(
  attempt: () => Promise<T>,
  onFailure: (error: unknown) => void,
  signal: AbortSignal,
): Promise<T> {
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(2 * wait, MAX_WAIT_MS)) {
    signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      signal.throwIfAborted();
      onFailure(error);
    }
    await sleep(wait, undefined, { signal }).catch(() => {});
  }
}

/** Never resolves. @throws the signal's reason, when it aborts */
export function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const stop = (): void => reject(signal.reason);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}
