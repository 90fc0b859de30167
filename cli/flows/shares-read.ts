import { basename, dirname } from 'node:path';
import { addAbortSignal } from 'node:stream';
import { toHex } from '@asterism/bytes/encoding';
import { Workspace } from '@asterism/config/workspace';
import { AsterismError } from '@asterism/errors/errors';
import { ShareCollection, SharesError } from '@asterism/shares/collection';
import type { SharedSecret } from '@asterism/shares/payload';
import { combineShares } from '@asterism/shares/split';
import { contentOf, MAX_TEXT, seemsWhole } from '@asterism/shares/text';
import type { Context } from '../context.ts';

/** Shares that are typed before we give up: nobody has that many. */
const MAX_ENTRIES = 64;

/** Where shares are: in these files, or on standard input. */
export type ShareSource = { readonly files: readonly string[] } | 'standard input';

/** The secret that shares give, and what they say it is of. */
export interface RecoveredSecret {
  readonly secret: SharedSecret;
  /** 64 hexadecimal digits. */
  readonly clusterId: string;
  readonly generation: number;
}

/**
 * Reads shares until there are enough. Those that cannot be used are named, each with the reason: as warnings where the
 * others are enough, and on standard input at once, where another may be given.
 *
 * @param clusterId 32 bytes: shares of other clusters are foreign
 * @throws SharesError (ERR_SHARES) where they are not enough
 */
export async function secretFromShares(
  context: Pick<Context, 'out' | 'signal'>,
  source: ShareSource,
  clusterId: Uint8Array | undefined,
): Promise<RecoveredSecret> {
  const collection = new ShareCollection(clusterId);
  if (source === 'standard input') await ask(context, collection);
  else for (const [i, file] of source.files.entries()) await addFile(collection, file, i + 1);
  const { shares, refused, foreign } = collection.take();
  // What was typed has been answered already.
  const untold = source === 'standard input' ? foreign : [...refused, ...foreign];
  for (const { name, why } of untold) context.out.warn(`${name}: ${why}; it is not needed`);
  try {
    const secret = await combineShares(shares);
    return { secret, clusterId: toHex(shares[0]!.clusterId), generation: shares[0]!.generation };
  } finally {
    for (const { body } of shares) body.fill(0);
  }
}

/** What cannot be read is a refused share like another: the rest may be enough. */
async function addFile(collection: ShareCollection, file: string, number: number): Promise<void> {
  // Names of files are quoted in messages; shares are not.
  if (/^\s*asterism-share:|(?:[a-z]+\s+){6}/i.test(file)) {
    const why = 'is a share itself, which others can see in the list of processes; give the name of its file';
    collection.refuse(`argument ${number}`, why);
    return;
  }
  let text: string | undefined;
  try {
    text = await new Workspace(dirname(file)).read(basename(file));
  } catch (error) {
    if (!(error instanceof AsterismError)) throw error;
    // Which begins with the file's name, as the line will.
    collection.refuse(file, error.message.replace(file, '').replace(/^:? /, ''));
    return;
  }
  if (text === undefined) collection.refuse(file, 'does not exist');
  else collection.add(file, text);
}

async function ask(
  { out, signal }: Pick<Context, 'out' | 'signal'>,
  collection: ShareCollection,
): Promise<void> {
  out.note(
    'Type or paste the shares one after the other: the words of each, or the line of its QR code. A share that ends ' +
      'too early is ended by an empty line. What is typed can be seen on the screen.',
  );
  let entry = 1;
  let text = '';
  const prompt = () => out.note(`entry ${entry} (${collection.progress}):`);
  prompt();
  for await (const line of inputLines(signal)) {
    const blank = contentOf(line) === '';
    if (!blank) text += `${line}\n`;
    const ended = (blank && text !== '') || seemsWhole(text) || text.length > MAX_TEXT;
    if (!ended) continue;
    const why = collection.add(`entry ${entry}`, text);
    if (why !== undefined) out.warn(`entry ${entry}: ${why}; give this share again, or another one`);
    text = '';
    if (collection.complete) return;
    entry += 1;
    if (entry > MAX_ENTRIES)
      throw new SharesError('ERR_SHARES', `${MAX_ENTRIES} entries were not enough; start anew`);
    prompt();
  }
  if (text !== '') collection.add(`entry ${entry}`, text);
}

/**
 * Lines of standard input, which is closed afterwards. Not by node:readline: it holds a line of any length.
 * @throws SharesError (ERR_SHARES) for a line that is longer than any share; the signal's reason
 */
async function* inputLines(signal: AbortSignal): AsyncGenerator<string> {
  process.stdin.setEncoding('utf8');
  let rest = '';
  try {
    for await (const chunk of addAbortSignal(signal, process.stdin)) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      yield* lines;
      if (rest.length > MAX_TEXT)
        throw new SharesError('ERR_SHARES', `a line of more than ${MAX_TEXT} characters is no share`);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
  if (rest !== '') yield rest;
}
