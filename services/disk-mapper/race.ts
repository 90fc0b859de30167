export interface Way<T> {
  readonly name: string;
  run(signal: AbortSignal): Promise<T>;
}

/**
 * The first good result of several ways to the same thing. A way that fails never ends the others, but the log says
 * so; when one has won, the others are told to stop and waited for.
 * @throws AggregateError every way failed; or the signal's reason when it aborts first
 */
export async function firstGood<T>(
  ways: readonly Way<T>[],
  log: { error(fields: object, message: string): void },
  signal: AbortSignal,
): Promise<T> {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const running = ways.map(async ({ name, run }) => {
    try {
      return await run(both);
    } catch (err) {
      if (!both.aborted) log.error({ err, way: name }, 'this way has ended; the others go on');
      throw err;
    }
  });
  try {
    return await Promise.any(running);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    stop.abort();
    await Promise.allSettled(running);
  }
}
