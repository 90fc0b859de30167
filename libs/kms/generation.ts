/** Generations of a KEK: 1 to this. */
export const MAX_GENERATION = 999_999_999;

/** @returns undefined unless it is a generation as Asterism writes it: no sign, no leading zero */
export function parseGeneration(text: string): number | undefined {
  return /^[1-9][0-9]{0,8}$/.test(text) ? Number(text) : undefined;
}

export function isGeneration(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MAX_GENERATION;
}
