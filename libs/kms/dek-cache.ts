import { zero } from '@asterism/bytes/bytes';

export interface CacheLimits {
  /** How long a key is kept, whether it is used or not. */
  readonly lifeMs: number;
  readonly entries: number;
}

/** A key, and the envelope that it came from. */
export interface OpenedDek {
  readonly dek: Uint8Array;
  readonly envelope: Uint8Array;
}

/** Keys for a bounded time, and a bounded number of them; zeroed when they go. */
export class DekCache {
  readonly #limits: CacheLimits;
  /** All live equally long, so that the oldest is the first, and the next to go. */
  readonly #entries = new Map<string, { opened: OpenedDek; ends: number }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(limits: CacheLimits) {
    this.#limits = limits;
  }

  /** @returns what is still the cache's: copy it at once, it is zeroed when its time is over */
  get(id: string): OpenedDek | undefined {
    const entry = this.#entries.get(id);
    // The timer may be late.
    return entry === undefined || entry.ends <= performance.now() ? undefined : entry.opened;
  }

  /** @param opened is the cache's from now on */
  set(id: string, opened: OpenedDek): void {
    this.#remove(id);
    this.#entries.set(id, { opened, ends: performance.now() + this.#limits.lifeMs });
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
    zero(entry.opened.dek);
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
