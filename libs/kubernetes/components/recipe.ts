import { createHash } from 'node:crypto';
import { readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MODULES } from './build-go.ts';
import { sha256OfFile } from './cache.ts';
import type { KubernetesRelease } from './catalogue.ts';
import { TOOLCHAIN_VERSION } from './toolchain.ts';

/** Names what a release is made from: catalogue, every file of its wrapper modules, compiler. */
export async function recipeOf(release: KubernetesRelease): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(release)).update(TOOLCHAIN_VERSION);
  const modules = new Set(release.programs.map((program) => program.module));
  for (const module of [...modules].sort()) {
    for (const name of (await readdir(join(MODULES, module))).sort()) {
      hash.update(`\0${module}/${name}\0`).update(await readFile(join(MODULES, module, name)));
    }
  }
  return hash.digest('hex');
}

/**
 * Makes a folder ready to be filled by a recipe. What another recipe made is not gone on with, but for programs whose
 * bytes are the pinned ones; what a killed build left half done is removed.
 *
 * @param known hexadecimal SHA-256 that a program of this name may have
 */
export async function prepareFolder(
  folder: string,
  recipe: string,
  known: (name: string) => Hashes,
): Promise<void> {
  await removeMatching(folder, (name) => name.startsWith('.') || name.endsWith('.part'));
  await removeMatching(join(folder, 'images'), (name) => name.startsWith('.'));
  await removeMatching(join(folder, 'bin'), (name) => name.startsWith('.'));
  const mark = join(folder, 'recipe');
  if ((await readFile(mark, 'utf8').catch(() => '')) === recipe) return;
  for (const name of ['images', 'cni-plugins.tar.gz', 'components.json']) {
    await rm(join(folder, name), { recursive: true, force: true });
  }
  await removeMatching(join(folder, 'bin'), async (name) => {
    return !(await isOneOf(join(folder, 'bin', name), known(name)));
  });
  await writeFile(`${mark}.part`, recipe);
  await rename(`${mark}.part`, mark);
}

type Hashes = readonly (string | undefined)[];

/** Whether a file is there and has one of these hexadecimal SHA-256. */
export async function isOneOf(path: string, hashes: Hashes): Promise<boolean> {
  const found = await sha256OfFile(path).catch(() => undefined);
  return found !== undefined && hashes.includes(found);
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
