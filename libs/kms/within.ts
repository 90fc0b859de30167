/**
 * Work under a signal that also aborts after a time. Unlike with AbortSignal.timeout and any, no timer and no listener
 * outlives the work: there may be ten thousands of it.
 *
 * @param late the reason to abort with, made when the time is up
 */
export async function within<T>(
  timeoutMs: number,
  signal: AbortSignal,
  late: () => Error,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const controller = new AbortController();
  const onAbort = () => controller.abort(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  const timer = setTimeout(() => controller.abort(late()), timeoutMs);
  try {
    return await work(controller.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  }
}
