/** What many callers saw. */
export interface Load {
  readonly perSecond: number;
  /** Milliseconds that one call of a hundred took longer than. */
  readonly p99Ms: number;
}

/** Makes `count` calls, `inFlight` at a time. */
export async function load(
  count: number,
  inFlight: number,
  call: (n: number) => Promise<unknown>,
): Promise<Load> {
  const took: number[] = [];
  let next = 0;
  const started = performance.now();
  const worker = async () => {
    while (next < count) {
      const at = performance.now();
      await call(next++);
      took.push(performance.now() - at);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, worker));
  const perSecond = (1000 * count) / (performance.now() - started);
  took.sort((a, b) => a - b);
  return { perSecond, p99Ms: took[Math.min(took.length - 1, Math.floor(took.length * 0.99))]! };
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
