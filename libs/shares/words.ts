import { nearest } from '@asterism/config/suggest';
import { ParseError } from '@asterism/errors/errors';
import { wordlist } from '@scure/bip39/wordlists/english.js';
import { LENGTH_PREFIX_BYTES, MAX_SHARE_BYTES, MIN_SHARE_BYTES, parsePrefix } from './share.ts';
import { CHECK_WORDS, checkWords, wrongWord } from './word-check.ts';

/** Words in a printed line. */
export const WORDS_PER_LINE = 6;
const BITS = 11;
const MIN_WORDS = wordsFor(MIN_SHARE_BYTES);
const MAX_WORDS = wordsFor(MAX_SHARE_BYTES);
const NUMBER_OF = new Map(wordlist.map((word, i) => [word, i]));
/** Words of the list differ in their first four letters (BIP 39). */
const PREFIX_LETTERS = 4;
const NUMBER_OF_PREFIX = new Map(wordlist.map((word, i) => [word.slice(0, PREFIX_LETTERS), i]));

/** Words that hold `bytes` bytes, check words among them. */
function wordsFor(bytes: number): number {
  return Math.ceil((bytes * 8) / BITS) + CHECK_WORDS;
}

/** Bytes as words of the English list of BIP 39: 11 bits each, zero bits at the end, then four check words. */
export function encodeWords(bytes: Uint8Array): string[] {
  const numbers: number[] = [];
  let bits = 0;
  let have = 0;
  for (const byte of bytes) {
    bits = ((bits << 8) | byte) & 0xfffff;
    have += 8;
    if (have >= BITS) {
      have -= BITS;
      numbers.push((bits >> have) & 0x7ff);
    }
  }
  if (have > 0) numbers.push((bits << (BITS - have)) & 0x7ff);
  return [...numbers, ...checkWords(numbers)].map((number) => wordlist[number]!);
}

/**
 * Reads words in either case, or four letters or more of each; numbers of lines and commas between them do not matter.
 * @returns the bytes of a share, which its own parser has to judge
 * @throws ParseError (ERR_SHARE) that names the word by its place
 */
export function decodeWords(text: string): Uint8Array {
  const tokens = tokensOf(text);
  if (tokens.length > MAX_WORDS)
    throw bad(`a share has at most ${MAX_WORDS} words; there are ${tokens.length}`);
  const numbers = tokens.map(numberOf);
  const wrong = numbers.length < MIN_WORDS ? -1 : wrongWord(numbers);
  if (wrong !== undefined && wrong >= 0) throw bad(`${place(wrong)} is wrong; copy it once more`);
  const bytes = bytesOf(numbers.slice(0, -CHECK_WORDS));
  // What the beginning says is worth a hint only, as long as the check words do not fit.
  const expected = expectedWords(bytes);
  if (expected !== undefined && expected !== numbers.length)
    throw bad(`it should have ${expected} words; there are ${numbers.length}`);
  if (wrong !== undefined || expected === undefined)
    throw bad(
      numbers.length < MIN_WORDS
        ? `a share has at least ${MIN_WORDS} words; there are ${numbers.length}`
        : 'several of its words are wrong, missing or in another order; compare it line by line',
    );
  const { length } = parsePrefix(bytes);
  if (bytes.subarray(length).some((byte) => byte !== 0)) throw bad('there is something after its end');
  return bytes.slice(0, length);
}

/** Whether there are as many words as their beginning says that there should be. */
export function isEnough(text: string): boolean {
  const tokens = tokensOf(text);
  try {
    // Three words hold more than the three bytes that tell the length.
    const expected = expectedWords(bytesOf(tokens.slice(0, LENGTH_PREFIX_BYTES).map(numberOf)));
    return expected !== undefined && tokens.length >= expected;
  } catch (error) {
    if (error instanceof ParseError) return false;
    throw error;
  }
}

function tokensOf(text: string): string[] {
  return text.split(/[\s,]+/).filter((token) => token !== '' && !/^\d{1,4}[.:)]?$/.test(token));
}

/** Words of the share that begins with these bytes; undefined where no share begins so. */
function expectedWords(bytes: Uint8Array): number | undefined {
  if (bytes.length < LENGTH_PREFIX_BYTES) return undefined;
  const { length } = parsePrefix(bytes);
  return length < MIN_SHARE_BYTES || length > MAX_SHARE_BYTES ? undefined : wordsFor(length);
}

/** Zero bits at the end that do not make a byte are dropped, others refused by the length that stands in the bytes. */
function bytesOf(numbers: readonly number[]): Uint8Array {
  const bytes: number[] = [];
  let bits = 0;
  let have = 0;
  for (const number of numbers) {
    bits = ((bits << BITS) | number) & 0x3ffff;
    have += BITS;
    while (have >= 8) {
      have -= 8;
      bytes.push((bits >> have) & 0xff);
    }
  }
  // The rest, so that it is seen where it is not zero.
  if (have > 0) bytes.push((bits << (8 - have)) & 0xff);
  return Uint8Array.from(bytes);
}

function numberOf(token: string, at: number): number {
  const word = token.toLowerCase();
  const exact = NUMBER_OF.get(word);
  if (exact !== undefined) return exact;
  const begun = NUMBER_OF_PREFIX.get(word.slice(0, PREFIX_LETTERS));
  if (word.length >= PREFIX_LETTERS && begun !== undefined && wordlist[begun]!.startsWith(word)) return begun;
  // Another file in the place of a share may be a secret: nothing is quoted but what can be a mistyped word.
  if (!/^[a-z]{1,12}$/i.test(token)) throw bad(`${place(at)} is not a word`);
  const suggestion = nearest(word, wordlist);
  throw bad(
    `${place(at)}, "${word}", is not in the list of words` +
      (suggestion === undefined ? '; copy it once more' : `; is it "${suggestion}"?`),
  );
}

function place(at: number): string {
  const [line, column] = [Math.floor(at / WORDS_PER_LINE) + 1, (at % WORDS_PER_LINE) + 1];
  return `word ${at + 1} (line ${line}, word ${column} of it)`;
}

function bad(why: string): ParseError {
  return new ParseError(why, { code: 'ERR_SHARE' });
}
