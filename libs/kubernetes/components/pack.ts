import { chmod, copyFile, link, mkdir, mkdtemp, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { runChecked } from '@asterism/runtime/program';
import { DETERMINISTIC, writeImageArchive } from '../oci/archive.ts';
import type { BuildOptions } from './build-go.ts';
import { CNI_PLUGINS, type ImageRecipe } from './catalogue.ts';
import { debianTree } from './debian-tree.ts';

/** Packs the image of a recipe out of programs in `bin`, unless it is there. */
export async function buildImage(image: ImageRecipe, folder: string, options: BuildOptions): Promise<void> {
  const target = join(folder, 'images', `${image.name}.tar`);
  if (await stat(target).catch(() => undefined)) return;
  options.onDetail(`image ${image.reference}`);
  const root = await mkdtemp(join(folder, '.root-'));
  try {
    await chmod(root, 0o755);
    if (image.packages !== undefined) {
      const tree = await debianTree(image.packages, options);
      await runChecked('cp', ['-a', `${tree}/.`, root], { timeoutMs: 120_000, signal: options.signal });
    }
    for (const [path, program] of Object.entries(image.programs)) {
      const to = join(root, path);
      await mkdir(join(to, '..'), { recursive: true });
      await link(join(folder, 'bin', program), to).catch(() => copyFile(join(folder, 'bin', program), to));
      await chmod(to, 0o755);
    }
    const { aliases, reference, entrypoint, user } = image;
    await writeImageArchive(
      root,
      { reference, ...(aliases && { aliases }), ...(entrypoint && { entrypoint }), ...(user && { user }) },
      target,
      options.signal,
    );
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

/** Packs the CNI plugins as upstream does: programs at the top of a .tar.gz. Unless it is there. */
export async function packCniPlugins(folder: string, options: BuildOptions): Promise<void> {
  const target = join(folder, 'cni-plugins.tar.gz');
  if (await stat(target).catch(() => undefined)) return;
  const flags = [...DETERMINISTIC, '--mode=755', '--use-compress-program=gzip -n'];
  const args = [...flags, '-C', join(folder, 'bin'), '-cf', `${target}.part`, ...CNI_PLUGINS];
  await runChecked('tar', args, { timeoutMs: 120_000, signal: options.signal });
  await rename(`${target}.part`, target);
}
