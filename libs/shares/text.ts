import { fromBase64Url, toBase64Url, toHex } from '@asterism/bytes/encoding';
import { printable } from '@asterism/bytes/printable';
import { ParseError } from '@asterism/errors/errors';
import { encodeShare, parseShare, type Share } from './share.ts';
import { decodeWords, encodeWords, WORDS_PER_LINE } from './words.ts';

const BEGIN = '-----BEGIN ASTERISM RECOVERY SHARE-----';
const END = '-----END ASTERISM RECOVERY SHARE-----';
const CODE_PREFIX = 'asterism-share:';
/** Longest text that is looked at, in characters. The longest share has about 6,000. */
export const MAX_TEXT = 32_768;

/** One line, for QR codes: `asterism-share:` and the share in URL-safe base64. */
export function shareCode(share: Share): string {
  return CODE_PREFIX + toBase64Url(encodeShare(share));
}

/** Whether a line by itself is a share, or the end of one: nothing more of it is to come. */
export function endsShare(line: string): boolean {
  return line.trim().startsWith(CODE_PREFIX) || line.trim() === END;
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
  return `Recovery share ${index} of ${count}. Any ${threshold} of the ${count} give the master secret of this cluster.
Keep it apart from the others, and from everyone else: asterism recover --help

${cluster === undefined ? '' : `Cluster:     ${printable(cluster, 100)}\n`}Cluster id:  ${toHex(clusterId)}
Generation:  ${generation}
Split:       ${toHex(splitId.subarray(0, 8))}
Words:       ${words.length}

${BEGIN}
${lines
  .map(
    (line, i) =>
      `${String(i + 1).padStart(3)}  ${line
        .map((word) => word.padEnd(8))
        .join(' ')
        .trimEnd()}`,
  )
  .join('\n')}
${END}
`;
}

/**
 * Reads a share in any of its forms: a file as {@link renderShare} writes it, its words alone, or a
 * {@link shareCode}. Structure and checksums only; see `isGenuine`.
 * @throws ParseError (ERR_SHARE); messages never hold the share
 */
export function parseShareText(text: string): Share {
  const bad = (why: string) => new ParseError(why, { code: 'ERR_SHARE' });
  if (text.length > MAX_TEXT) throw bad(`it has ${text.length} characters; a share has at most ${MAX_TEXT}`);
  const inner = between(text, bad).trim();
  if (inner === '') throw bad('it is empty');
  if (!inner.startsWith(CODE_PREFIX)) return parseShare(decodeWords(inner));
  let bytes: Uint8Array;
  try {
    bytes = fromBase64Url(inner.slice(CODE_PREFIX.length));
  } catch {
    throw bad(`what follows ${CODE_PREFIX} is not URL-safe base64: it is damaged`);
  }
  return parseShare(bytes);
}

/** What stands between the marks, each a line of its own, or all of it where there are none. */
function between(text: string, bad: (why: string) => Error): string {
  const lines = text.split('\n');
  const places = (mark: string) =>
    lines.flatMap((line, i) => (line.trim().toUpperCase() === mark ? [i] : []));
  const [begin = -1, ...begins] = places(BEGIN);
  const [end = -1, ...ends] = places(END);
  if (begin < 0 && end < 0) return text;
  if (begins.length + ends.length > 0)
    throw bad('there are several shares in it; each needs a file of its own');
  if (begin < 0 || end < begin) throw bad(`one of the lines ${BEGIN} and ${END} is missing: it is cut off`);
  return lines.slice(begin + 1, end).join('\n');
}
