import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MODULES } from './build-go.ts';
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
