import type { Journal } from './journal.ts';

/** For so long the answer of an init that has ended can be fetched, unless it is confirmed before. */
export const DELIVERY_MS = 24 * 3600_000;

const FACT = 'endedAt';

/** Writes down that all phases are done. A later call that fetches the answer again does not give it more time. */
export async function markEnded(journal: Journal, now = Date.now()): Promise<void> {
  if (journal.fact(FACT) === undefined) await journal.setFact(FACT, String(now));
}

/**
 * Milliseconds that are left to fetch and confirm the answer; 0 when they are over.
 * @returns undefined while the init has not ended
 */
export function deliveryLeftMs(journal: Journal, now = Date.now()): number | undefined {
  const fact = journal.fact(FACT);
  if (fact === undefined) return undefined;
  const endedAt = Number(fact);
  if (!Number.isFinite(endedAt)) return 0;
  // A clock that was set back must not prolong it.
  return Math.min(Math.max(endedAt + DELIVERY_MS - now, 0), DELIVERY_MS);
}
