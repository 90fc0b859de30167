import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildOptions } from '@asterism/kubernetes/components/build-go';
import { sha256OfFile } from '@asterism/kubernetes/components/cache';
import { type DebianPackage, idOfPackages } from '@asterism/kubernetes/components/debian-packages';
import { useDebianTree } from '@asterism/kubernetes/components/debian-tree';
import { writeImageArchive } from '@asterism/kubernetes/oci/archive';
import { place } from '@asterism/kubernetes/oci/place';
import { runChecked } from '@asterism/runtime/program';
import { bundle, PINNED_NODE } from './bundle.ts';

/** Never pulled: every node has it in its measured root file system. */
export const SERVICES_REFERENCE = 'asterism.local/services:0.1.0';

export const CONTAINER_SERVICES = ['join-service', 'key-service', 'verification-service'] as const;

/** What Node needs of Debian to run. */
const PACKAGES = ['libc6', 'libgcc-s1', 'libstdc++6', 'ca-certificates'];
const CONFIG = {
  reference: SERVICES_REFERENCE,
  env: ['PATH=/app:/usr/sbin:/usr/bin:/sbin:/bin', 'NODE_ENV=production'],
  workingDirectory: '/app',
};

/** The container image with the services that run inside Kubernetes, before it is packed. */
export interface ServicesImage {
  /** The root file system, but for Node. */
  readonly root: string;
  /** SHA-256 over all that goes in. */
  readonly id: string;
  readonly packages: readonly DebianPackage[];
}

/**
 * Brings together what is in the container image of the services.
 * @param work an empty folder for this alone
 */
export async function gatherServices(
  work: string,
  options: BuildOptions & { readonly refresh?: boolean },
): Promise<ServicesImage> {
  const root = join(work, 'root');
  await mkdir(root);
  const packages = await useDebianTree(PACKAGES, options, async (tree) => {
    await runChecked('cp', ['-a', `${tree.folder}/.`, root], { timeoutMs: 60_000, signal: options.signal });
    return tree.packages;
  });
  const inputs = [idOfPackages(packages), await sha256OfFile(PINNED_NODE), JSON.stringify(CONFIG)];
  for (const name of CONTAINER_SERVICES) {
    const built = join(work, `${name}.mjs`);
    await bundle(`services/${name}/main.ts`, built);
    await place(root, `app/${name}.mjs`, 0o644, (to) => copyFile(built, to));
    inputs.push(await readFile(built, 'utf8'));
  }
  return { root, id: createHash('sha256').update(JSON.stringify(inputs)).digest('hex'), packages };
}

/** Packs it, with the Node that runs it. The same files give the same bytes. */
export async function packServices({ root }: ServicesImage, to: string, signal: AbortSignal): Promise<void> {
  await place(root, 'app/package.json', 0o644, (path) => writeFile(path, '{"type":"module"}\n'));
  await place(root, 'app/node', 0o755, (path) => copyFile(PINNED_NODE, path));
  await writeImageArchive(root, CONFIG, to, signal);
}
