/**
 * The first good result of several ways to the same thing. A way that fails never ends the others; when one has
 * won, the others are told to stop and waited for.
 * @throws AggregateError every way failed; or the signal's reason when it aborts first
 */
export async function firstGood<T>(
  ways: readonly ((signal: AbortSignal) => Promise<T>)[],
  signal: AbortSignal,
): Promise<T> {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const running = ways.map((way) => way(both));
  try {
    return await Promise.any(running);
  } finally {
    stop.abort();
    await Promise.allSettled(running);
  }
}
