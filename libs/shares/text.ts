import { fromBase64Url, toBase64Url, toHex } from '@asterism/bytes/encoding';
import { printable } from '@asterism/bytes/printable';
import { ParseError } from '@asterism/errors/errors';
import { encodeShare, parseShare, type Share } from './share.ts';
import { decodeWords, encodeWords, isEnough, WORDS_PER_LINE } from './words.ts';

const CODE_PREFIX = 'asterism-share:';
/** Longest text that is looked at, in characters. The longest share has about 6,000. */
export const MAX_TEXT = 32_768;

/** One line, for QR codes: `asterism-share:` and the share in URL-safe base64. */
export function shareCode(share: Share): string {
  return CODE_PREFIX + toBase64Url(encodeShare(share));
}

/**
 * A share for people: what it is of, then its words in numbered lines.
 * @param cluster name of the cluster, for the reader; nothing depends on it
 */
export function renderShare(share: Share, cluster: string | undefined): string {
  const { clusterId, generation, threshold, count, index, splitId } = share;
  const words = encodeWords(encodeShare(share));
  const lines = Array.from({ length: Math.ceil(words.length / WORDS_PER_LINE) }, (_, i) =>
    words.slice(i * WORDS_PER_LINE, (i + 1) * WORDS_PER_LINE),
  );
  const heading = [
    `Recovery share ${index} of ${count}. Any ${threshold} of the ${count} give the master secret of this cluster.`,
    'Keep it apart from the others and away from everyone else. See: asterism recover --help',
    ...(cluster === undefined ? [] : [`Cluster:     ${printable(cluster, 100)}`]),
    `Cluster id:  ${toHex(clusterId)}`,
    `Generation:  ${generation}`,
    `Split:       ${toHex(splitId.subarray(0, 8))}`,
    `Words:       ${words.length}`,
  ];
  const numbered = lines.map(
    (line, i) =>
      `${String(i + 1).padStart(3)}  ${line
        .map((word) => word.padEnd(8))
        .join(' ')
        .trimEnd()}`,
  );
  return `${[...heading.map((line) => `# ${line}`), ...numbered].join('\n')}\n`;
}

/**
 * Reads a share in any of its forms: a file as {@link renderShare} writes it, its words alone, or a
 * {@link shareCode}. Lines that begin with # are for people. Structure and checksums only; see `isGenuine`.
 * @throws ParseError (ERR_SHARE); messages never hold the share
 */
export function parseShareText(text: string): Share {
  const bad = (why: string) => new ParseError(why, { code: 'ERR_SHARE' });
  if (text.length > MAX_TEXT) throw bad(`it has ${text.length} characters; a share has at most ${MAX_TEXT}`);
  const content = contentOf(text);
  if (content === '') throw bad('it is empty');
  if (!content.startsWith(CODE_PREFIX)) return parseShare(decodeWords(content));
  let bytes: Uint8Array;
  try {
    bytes = fromBase64Url(content.slice(CODE_PREFIX.length));
  } catch {
    throw bad(`what follows ${CODE_PREFIX} is not URL-safe base64: it is damaged`);
  }
  return parseShare(bytes);
}

/** Whether these lines, as somebody types them, are a whole share as far as can be told from their number. */
export function seemsWhole(text: string): boolean {
  const content = contentOf(text);
  return content.startsWith(CODE_PREFIX) || isEnough(content);
}

/** What is not for people only. */
export function contentOf(text: string): string {
  const lines = text.split('\n').filter((line) => !line.trimStart().startsWith('#'));
  return lines.join('\n').trim();
}
