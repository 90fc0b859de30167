// A Reed-Solomon code over GF(2^11), one symbol a word: finds which word was copied wrongly.

/** Words that are added for the check. Four find any three wrong words, and say which one where it is one. */
export const CHECK_WORDS = 4;
/** Longest sequence that the code covers. */
export const MAX_CODE_WORDS = 2047;

const ORDER = 2047;
/** x^11 + x^2 + 1, primitive: powers of x are all elements but 0. */
const POLYNOMIAL = 0x805;
const EXP = new Uint16Array(ORDER);
const LOG = new Uint16Array(ORDER + 1);
for (let i = 0, value = 1; i < ORDER; i++) {
  EXP[i] = value;
  LOG[value] = i;
  value <<= 1;
  if (value > ORDER) value ^= POLYNOMIAL;
}

function multiply(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : EXP[(LOG[a]! + LOG[b]!) % ORDER]!;
}

/** (x - 1)(x - a)(x - a^2)(x - a^3), the highest power first. */
let generator = [1];
for (let power = 0; power < CHECK_WORDS; power++) {
  const shifted = [...generator, 0];
  for (const [i, factor] of generator.entries()) shifted[i + 1]! ^= multiply(factor, EXP[power]!);
  generator = shifted;
}

/** The check words for `words` (numbers below 2048): to be put after them. */
export function checkWords(words: readonly number[]): number[] {
  const remainder = [...words, ...new Array<number>(CHECK_WORDS).fill(0)];
  for (let i = 0; i < words.length; i++) {
    const lead = remainder[i]!;
    for (const [j, factor] of generator.entries()) remainder[i + j]! ^= multiply(factor, lead);
  }
  return remainder.slice(-CHECK_WORDS);
}

/**
 * Judges words with their check words at the end.
 * @returns `undefined` where all fit; else the place (from 0) of the one that does not, or -1 where it is not one alone
 */
export function wrongWord(words: readonly number[]): number | undefined {
  const syndromes = Array.from({ length: CHECK_WORDS }, (_, power) =>
    words.reduce((sum, word) => multiply(sum, EXP[power]!) ^ word, 0),
  );
  if (syndromes.every((syndrome) => syndrome === 0)) return undefined;
  if (syndromes.some((syndrome) => syndrome === 0)) return -1;
  // One wrong word at x^d makes the syndromes e, e a^d, e a^2d, e a^3d.
  const steps = [1, 2, 3].map((i) => (LOG[syndromes[i]!]! - LOG[syndromes[i - 1]!]! + ORDER) % ORDER);
  const [degree = 0] = steps;
  if (steps.some((step) => step !== degree) || degree >= words.length) return -1;
  return words.length - 1 - degree;
}
