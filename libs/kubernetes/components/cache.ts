import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { runChecked } from '@asterism/runtime/program';

const SYNC_TIMEOUT_MS = 300_000;

/** `$XDG_CACHE_HOME/asterism`, or `~/.cache/asterism`. */
export function cacheFolder(...parts: string[]): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'asterism', ...parts);
}

/** Hex SHA-256 of a file's content. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return hash.digest('hex');
}

/** Whether a file is there and has one of these hexadecimal SHA-256. */
export async function isOneOf(path: string, hashes: readonly (string | undefined)[]): Promise<boolean> {
  const found = await sha256OfFile(path).catch(() => undefined);
  return found !== undefined && hashes.includes(found);
}

/** Gives a file its name once its bytes are on the disk: the name means the whole file, after a power cut too. */
export async function moveIntoPlace(from: string, to: string): Promise<void> {
  await syncPath(from);
  await rename(from, to);
  await syncPath(dirname(to));
}

/** As {@link moveIntoPlace} for a folder; what had the name before is then beside `from`, as `<from>.old`. */
export async function moveTreeIntoPlace(from: string, to: string, signal: AbortSignal): Promise<void> {
  await runChecked('sync', ['--file-system', from], { timeoutMs: SYNC_TIMEOUT_MS, signal });
  if (await stat(to).catch(() => undefined)) await rename(to, `${from}.old`);
  await rename(from, to);
  await syncPath(dirname(to));
}

async function syncPath(path: string): Promise<void> {
  await using file = await open(path, 'r');
  await file.sync();
}

/** Removes the entries of a folder, if there is one, whose name matches. */
export async function removeMatching(
  folder: string,
  matches: (name: string) => boolean | Promise<boolean>,
): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    if (await matches(name)) await rm(join(folder, name), { recursive: true, force: true });
  }
}
