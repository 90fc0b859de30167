import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildOptions } from '@asterism/kubernetes/components/build-go';
import { cacheFolder, sha256OfFile } from '@asterism/kubernetes/components/cache';
import { debianTree } from '@asterism/kubernetes/components/debian-tree';
import { writeImageArchive } from '@asterism/kubernetes/oci/archive';
import { runChecked } from '@asterism/runtime/program';
import { bundle, PINNED_NODE } from './bundle.ts';

/** Never pulled: every node has it in its measured root file system. */
export const SERVICES_REFERENCE = 'asterism.local/services:0.1.0';

export const CONTAINER_SERVICES = ['join-service', 'key-service', 'verification-service'] as const;

/** What Node needs of Debian to run. */
const PACKAGES = ['libc6', 'libgcc-s1', 'libstdc++6', 'ca-certificates'];

/** The container image with the services that run inside Kubernetes. @returns path of the archive */
export async function buildServicesImage(options: BuildOptions): Promise<string> {
  await mkdir(cacheFolder('image'), { recursive: true });
  const work = await mkdtemp(join(cacheFolder('image'), '.services-'));
  try {
    const app = join(work, 'root/app');
    await mkdir(app, { recursive: true });
    const hash = createHash('sha256')
      .update(await sha256OfFile(PINNED_NODE))
      .update(JSON.stringify(PACKAGES));
    for (const name of CONTAINER_SERVICES) {
      await bundle(`services/${name}/main.ts`, join(app, `${name}.mjs`));
      hash.update(await readFile(join(app, `${name}.mjs`)));
    }
    const archive = cacheFolder('image', `services-${hash.digest('hex').slice(0, 16)}.tar`);
    if (await stat(archive).catch(() => undefined)) return archive;
    options.onDetail(`image ${SERVICES_REFERENCE}`);
    const tree = await debianTree(PACKAGES, options);
    await runChecked('cp', ['-a', `${tree}/.`, join(work, 'root')], {
      timeoutMs: 60_000,
      signal: options.signal,
    });
    await copyFile(PINNED_NODE, join(app, 'node'));
    await chmod(join(app, 'node'), 0o755);
    await writeFile(join(app, 'package.json'), '{"type":"module"}\n');
    await chmod(join(work, 'root'), 0o755);
    const config = {
      reference: SERVICES_REFERENCE,
      env: ['PATH=/app:/usr/sbin:/usr/bin:/sbin:/bin', 'NODE_ENV=production'],
      workingDirectory: '/app',
    };
    await writeImageArchive(join(work, 'root'), config, join(work, 'services.tar'), options.signal);
    await rename(join(work, 'services.tar'), archive);
    return archive;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
