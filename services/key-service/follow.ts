import { setTimeout as sleep } from 'node:timers/promises';

export interface FollowOptions {
  readonly intervalMs: number;
  readonly signal: AbortSignal;
  readonly log: { error(fields: object, message: string): void };
  /** What is logged when the work fails. The same failure again and again is one line. */
  readonly trouble: string;
}

/** Does something again and again until the signal aborts, whatever comes of it. */
export async function follow(work: () => Promise<void>, options: FollowOptions): Promise<void> {
  const { intervalMs, signal, log, trouble } = options;
  let said: string | undefined;
  while (!signal.aborted) {
    try {
      await work();
      said = undefined;
    } catch (err) {
      if (signal.aborted) return;
      const what = err instanceof Error ? err.message : String(err);
      if (what !== said) log.error({ err }, trouble);
      said = what;
    }
    await sleep(intervalMs, undefined, { signal }).catch(() => {});
  }
}
