import { zero } from '@asterism/bytes/bytes';

export interface CacheLimits {
  /** How long a key is kept, whether it is used or not. */
  readonly lifeMs: number;
  readonly entries: number;
}

/** Keys for a bounded time, and a bounded number of them; zeroed when they go. Its arrays never leave it. */
export class DekCache {
  readonly #limits: CacheLimits;
  /** All live equally long, so that the oldest is the first, and the next to go. */
  readonly #entries = new Map<string, { dek: Uint8Array; ends: number }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(limits: CacheLimits) {
    this.#limits = limits;
  }

  /** @returns a copy, for the caller to zero */
  get(id: string): Uint8Array | undefined {
    const entry = this.#entries.get(id);
    // The timer may be late.
    return entry === undefined || entry.ends <= performance.now() ? undefined : Uint8Array.from(entry.dek);
  }

  /** @param dek is the cache's from now on */
  set(id: string, dek: Uint8Array): void {
    this.#remove(id);
    this.#entries.set(id, { dek, ends: performance.now() + this.#limits.lifeMs });
    if (this.#entries.size > this.#limits.entries) this.#remove(this.#entries.keys().next().value!);
    this.#wait();
  }

  clear(): void {
    for (const id of [...this.#entries.keys()]) this.#remove(id);
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  get size(): number {
    return this.#entries.size;
  }

  #remove(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    zero(entry.dek);
    this.#entries.delete(id);
  }

  #wait(): void {
    const first = this.#entries.values().next().value;
    if (this.#timer !== undefined || first === undefined) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        const now = performance.now();
        for (const [id, { ends }] of this.#entries) {
          if (ends > now) break;
          this.#remove(id);
        }
        this.#wait();
      },
      Math.max(1, first.ends - performance.now()),
    );
    this.#timer.unref();
  }
}
