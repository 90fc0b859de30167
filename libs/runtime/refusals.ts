import { BoundedCache } from '@asterism/bytes/bounded-cache';

/** A caller that was quiet for this long starts anew. */
const SPELL_MS = 60_000;
const MAX_CALLERS = 10_000;

/**
 * Keeps a caller that is refused again and again from filling the disk: of its refusals in a row those are worth a
 * line whose number is a power of two. The line says how many there were, so nothing is hidden.
 */
export class Refusals {
  readonly #seen = new BoundedCache<{ count: number; at: number }>(MAX_CALLERS);
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** @returns how many refusals in a row this is, where it is worth a line; else undefined */
  count(caller: string): number | undefined {
    const now = this.#now();
    const last = this.#seen.get(caller);
    const count = last === undefined || now - last.at > SPELL_MS ? 1 : last.count + 1;
    this.#seen.set(caller, { count, at: now });
    return Number.isInteger(Math.log2(count)) ? count : undefined;
  }
}
