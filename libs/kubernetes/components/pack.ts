import { copyFile, link, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { runChecked } from '@asterism/runtime/program';
import { DETERMINISTIC, writeImageArchive } from '../oci/archive.ts';
import { place } from '../oci/place.ts';
import type { BuildOptions } from './build-go.ts';
import { moveIntoPlace } from './cache.ts';
import { CNI_PLUGINS, type ImageRecipe } from './catalogue.ts';
import type { DebianPackage } from './debian-packages.ts';
import { useDebianTree } from './debian-tree.ts';

/**
 * Packs the image of a recipe out of programs in `bin`.
 * @returns the Debian packages whose files are in it
 */
export async function buildImage(
  image: ImageRecipe,
  folder: string,
  options: BuildOptions,
): Promise<readonly DebianPackage[]> {
  options.onDetail(`image ${image.reference}`);
  const root = await mkdtemp(join(folder, '.root-'));
  try {
    const packages = await copyPackages(image.packages, root, options);
    for (const [path, program] of Object.entries(image.programs)) {
      const from = join(folder, 'bin', program);
      await place(root, path, 0o755, (to) => link(from, to).catch(() => copyFile(from, to)));
    }
    const { aliases, reference, entrypoint, user } = image;
    await writeImageArchive(
      root,
      { reference, ...(aliases && { aliases }), ...(entrypoint && { entrypoint }), ...(user && { user }) },
      join(folder, 'images', `${image.name}.tar`),
      options.signal,
    );
    return packages;
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

async function copyPackages(
  names: readonly string[] | undefined,
  root: string,
  options: BuildOptions,
): Promise<readonly DebianPackage[]> {
  if (names === undefined) return [];
  return useDebianTree(names, options, async ({ folder, packages }) => {
    await runChecked('cp', ['-a', `${folder}/.`, root], { timeoutMs: 120_000, signal: options.signal });
    return packages;
  });
}

/** Packs the CNI plugins as upstream does: programs at the top of a .tar.gz. */
export async function packCniPlugins(folder: string, options: BuildOptions): Promise<void> {
  const work = await mkdtemp(join(folder, '.cni-'));
  try {
    const flags = [...DETERMINISTIC, '--mode=755', '--use-compress-program=gzip -n'];
    const args = [...flags, '-C', join(folder, 'bin'), '-cf', join(work, 'packed'), ...CNI_PLUGINS];
    await runChecked('tar', args, { timeoutMs: 120_000, signal: options.signal });
    await moveIntoPlace(join(work, 'packed'), join(folder, 'cni-plugins.tar.gz'));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
