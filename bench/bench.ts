/** One line of a result table. */
export interface Row {
  /** What was measured, e.g. `server-attested, 1 KiB`. */
  readonly what: string;
  readonly value: number;
  /** E.g. `/s`, `ms`, `MB`, `%`. */
  readonly unit: string;
  /** What the same machine could do at best in the same run, and what that limit is. */
  readonly limit?: { readonly what: string; readonly value: number };
  readonly note?: string;
}

export interface BenchContext {
  /** Shorter runs with worse statistics, to see whether it works at all. */
  readonly quick: boolean;
  /** Says what is being done now. */
  progress(message: string): void;
}

/** What a *.bench.ts file exports as its default. */
export interface Bench {
  readonly name: string;
  /** @throws Error why it could not be measured */
  run(context: BenchContext): Promise<readonly Row[]>;
}
