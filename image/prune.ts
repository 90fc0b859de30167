import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** What a folder of images keeps of each kind, the newest: going back to an older state of the sources stays quick. */
const KEPT: readonly { readonly names: RegExp; readonly count: number }[] = [
  { names: /^[0-9a-f]{16}$/, count: 5 },
  { names: /^debian-[0-9a-f]{16}$/, count: 2 },
];
/** Work of builds that were killed. */
const LEFTOVER = /^\.(?:node|debian)-/;

/**
 * Removes what killed builds have left, and all but the newest of what builds have made. A cluster has a copy of its
 * own image, so nothing that runs is touched. Only for who holds the folder's lock.
 */
export async function pruneImages(folder: string): Promise<void> {
  const entries: { name: string; usedMs: number }[] = [];
  for (const name of await readdir(folder)) {
    const found = await stat(join(folder, name)).catch(() => undefined);
    if (found !== undefined) entries.push({ name, usedMs: found.mtimeMs });
  }
  const doomed = entries.map(({ name }) => name).filter((name) => LEFTOVER.test(name));
  for (const { names, count } of KEPT) {
    const kind = entries.filter(({ name }) => names.test(name)).sort((a, b) => b.usedMs - a.usedMs);
    doomed.push(...kind.slice(count).map(({ name }) => name));
  }
  for (const name of doomed) await rm(join(folder, name), { recursive: true, force: true });
}
