import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { cacheFolder } from './cache.ts';
import { DEFAULT_VERSION, NODE_PROGRAMS } from './catalogue.ts';
import { withLock } from './lock.ts';
import { pruneComponents } from './prune.ts';

const NODE = `components/node-${NODE_PROGRAMS[0]!.module}`;
const VARIABLES = ['XDG_CACHE_HOME', 'GOCACHE', 'GOMODCACHE'];
const set = Object.fromEntries(VARIABLES.map((name) => [name, process.env[name]]));
const options = { signal: AbortSignal.timeout(60_000), onDetail: () => {} };
let folder: TemporaryFolder;

async function make(...files: string[]): Promise<void> {
  for (const file of files) {
    await mkdir(dirname(cacheFolder(file)), { recursive: true });
    await writeFile(cacheFolder(file), '{}');
  }
}
const left = async (path: string) =>
  (await readdir(cacheFolder(path)).catch(() => [])).filter((name) => !name.endsWith('.lock')).sort();

beforeEach(async () => {
  folder = await temporaryFolder();
  for (const name of VARIABLES) delete process.env[name];
  process.env.XDG_CACHE_HOME = folder.path;
  await make('go/build/aa/x', 'go/mod/cache/download/x', 'go/mod/example.com/x', 'go/toolchain-1/bin/go');
  await make('components/v1.2.3/bin/kubelet', 'components/node-other/x', 'components/mine');
  await make(join('components', DEFAULT_VERSION, 'bin/kubelet'));
});
afterEach(async () => {
  for (const name of VARIABLES) {
    if (set[name] === undefined) delete process.env[name];
    else process.env[name] = set[name];
  }
  await folder[Symbol.asyncDispose]();
});

it('removes versions that have left the catalogue, and nothing else', async () => {
  await pruneComponents(options);
  assert.deepEqual(await left('components'), ['mine', DEFAULT_VERSION].sort());
  assert.deepEqual(await left('go'), ['build', 'mod', 'toolchain-1']);
});

it('leaves a version alone that somebody works on', async () => {
  await withLock(cacheFolder('components/v1.2.3'), options, () => pruneComponents(options));
  assert.ok((await left('components')).includes('v1.2.3'));
});

/** A cluster can be made of what is there. */
const complete = () =>
  make(
    join('components', DEFAULT_VERSION, 'components.json'),
    ...NODE_PROGRAMS.map(({ name }) => join(NODE, name)),
  );

it('empties the caches of Go once everything is built, but for the archives of modules', async () => {
  await complete();
  await pruneComponents(options);
  assert.deepEqual(await left('go'), ['mod', 'toolchain-1']);
  assert.deepEqual(await left('go/mod'), ['cache']);
});

it('leaves the caches of Go alone that somebody builds with', async () => {
  await complete();
  await withLock(cacheFolder('go/build'), { ...options, shared: true }, () => pruneComponents(options));
  assert.deepEqual(await left('go'), ['build', 'mod', 'toolchain-1']);
});

it("leaves the user's own caches alone", async () => {
  await complete();
  process.env.GOCACHE = cacheFolder('go/build');
  process.env.GOMODCACHE = cacheFolder('go/mod');
  await pruneComponents(options);
  assert.deepEqual(await left('go'), ['build', 'mod', 'toolchain-1']);
  assert.deepEqual(await left('go/mod'), ['cache', 'example.com']);
});
