import { readdir, rm, stat } from 'node:fs/promises';
import { type BuildOptions, OWN_GO_CACHE } from './build-go.ts';
import { cacheFolder, removeMatching } from './cache.ts';
import { NODE_PROGRAMS, RELEASES } from './catalogue.ts';
import { withLock } from './lock.ts';
import { readManifest } from './manifest.ts';

/**
 * After a build: removes versions that have left the catalogue, and, once a cluster can be made of what is there, what
 * only the next build would need. Whatever somebody else works with stays.
 */
export async function pruneComponents(options: BuildOptions): Promise<void> {
  const node = `node-${NODE_PROGRAMS[0]!.module}`;
  const wanted = [...RELEASES.map(({ version }) => version), node];
  for (const name of await readdir(cacheFolder('components')).catch(() => [])) {
    if (!/^(?:v\d|node-)/.test(name) || name.endsWith('.lock') || wanted.includes(name)) continue;
    const folder = cacheFolder('components', name);
    await ifFree(folder, options, () => rm(folder, { recursive: true, force: true }));
  }
  const manifests = await Promise.all(RELEASES.map(({ version }) => readManifest(version)));
  const programs = await Promise.all(
    NODE_PROGRAMS.map(({ name }) => stat(cacheFolder('components', node, name)).catch(() => undefined)),
  );
  if (manifests.some((found) => found !== undefined) && !programs.includes(undefined)) {
    await ifFree(cacheFolder(OWN_GO_CACHE), options, emptyGoCaches);
  }
}

/**
 * The compiler's cache is many times what it made. Of modules the downloaded archives stay, a sixth of the whole: with
 * them the next version is built with few downloads, and the same one with none.
 */
async function emptyGoCaches(): Promise<void> {
  if (process.env.GOCACHE === undefined)
    await rm(cacheFolder(OWN_GO_CACHE), { recursive: true, force: true });
  if (process.env.GOMODCACHE === undefined) {
    await removeMatching(cacheFolder('go/mod'), (name) => name !== 'cache');
  }
}

async function ifFree(path: string, options: BuildOptions, use: () => Promise<void>): Promise<void> {
  await withLock(path, { ...options, timeoutMs: 0 }, use).catch((error) => {
    if ((error as { code?: string }).code !== 'ERR_BUILD_LOCKED') throw error;
  });
}
