import { createHash } from 'node:crypto';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import type { Measurements } from '@asterism/attestation/measurements';
import type { BuildOptions } from '@asterism/kubernetes/components/build-go';
import { cacheFolder, sha256OfFile, withLock } from '@asterism/kubernetes/components/cache';
import { provideNodePrograms } from '@asterism/kubernetes/components/provide';
import { tarFolder } from '@asterism/kubernetes/oci/archive';
import { runChecked } from '@asterism/runtime/program';
import { bundle, ROOT } from './bundle.ts';
import { addOwnFiles, debianRoot, packSquashfs } from './rootfs.ts';
import { buildServicesImage } from './services-image.ts';
import { predictMeasurements, STAGES } from './stages.ts';

/** A node image in the cache. */
export interface BuiltImage {
  /** `sha256:` over the digests of all stages. */
  readonly reference: string;
  readonly folder: string;
  readonly measurements: Measurements;
}

const CMDLINE = 'asterism.provider=local asterism.attestation-variant=qemu-vtpm asterism.version=0.1.0';
/** Programs of the initrd stage. */
const INITRD_SERVICES = ['disk-mapper', 'bootstrapper'] as const;

/**
 * Builds the node image of this source tree, unless it is there: boot stage, command line, initrd with disk-mapper
 * and bootstrapper, root file system. It appears under its name only when whole.
 */
export async function buildNodeImage(options: BuildOptions): Promise<BuiltImage> {
  await mkdir(cacheFolder('image'), { recursive: true });
  return withLock(cacheFolder('image'), async () => {
    await sweep();
    const work = await mkdtemp(cacheFolder('image', '.node-'));
    try {
      const inputs = await gatherInputs(work, options);
      const folder = cacheFolder('image', inputs.id);
      if ((await stat(join(folder, 'node.squashfs')).catch(() => undefined)) === undefined) {
        await pack(work, inputs, options);
        await rm(folder, { recursive: true, force: true });
        await rename(join(work, 'image'), folder);
      }
      await writeFile(cacheFolder('image', 'latest'), inputs.id);
      return await describe(folder);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });
}

/** The image that was built last; undefined where there is none. It may be of an older state of the sources. */
export async function latestImage(): Promise<BuiltImage | undefined> {
  const id = await readFile(cacheFolder('image', 'latest'), 'utf8').catch(() => undefined);
  if (id === undefined || !/^[0-9a-f]{16}$/.test(id)) return undefined;
  const folder = cacheFolder('image', id);
  return (await stat(folder).catch(() => undefined)) === undefined ? undefined : describe(folder);
}

/** Folder of an image that is in the cache. */
export async function imageFolder(reference: string): Promise<string | undefined> {
  for (const name of await readdir(cacheFolder('image')).catch(() => [])) {
    const found = await readFile(cacheFolder('image', name, 'reference'), 'utf8').catch(() => undefined);
    if (found === reference) return cacheFolder('image', name);
  }
  return undefined;
}

interface Inputs {
  readonly id: string;
  readonly nodePrograms: string;
  readonly servicesImage: string;
  readonly debian: string;
  readonly manifests: string;
}

/** Everything that the image depends on, cheap to make; `id` names the image. */
async function gatherInputs(work: string, options: BuildOptions): Promise<Inputs> {
  const image = join(work, 'image');
  const programs = join(work, 'initrd');
  const manifests = join(work, 'deploy');
  for (const folder of [image, programs, manifests]) await mkdir(folder, { recursive: true });
  for (const name of INITRD_SERVICES) await bundle(`services/${name}/main.ts`, join(programs, `${name}.mjs`));
  await chmod(programs, 0o755);
  await tarFolder(programs, join(image, 'initrd.tar'), options.signal);
  await copyFile(join(ROOT, 'image/files/boot.sh'), join(image, 'boot.sh'));
  await writeFile(join(image, 'cmdline'), `${CMDLINE}\n`);
  await collectManifests(manifests);
  const nodePrograms = await provideNodePrograms(options);
  const servicesImage = await buildServicesImage(options);
  const debian = await debianRoot(options);
  const hash = createHash('sha256')
    .update(process.version)
    .update(debian)
    .update(servicesImage)
    .update(CMDLINE);
  for (const file of [
    ...(await filesOf(image)),
    ...(await filesOf(manifests)),
    ...(await filesOf(join(ROOT, 'image/files'))),
    ...(await filesOf(nodePrograms)),
    join(ROOT, 'image/rootfs.ts'),
  ]) {
    hash.update(await sha256OfFile(file));
  }
  return { id: hash.digest('hex').slice(0, 16), nodePrograms, servicesImage, debian, manifests };
}

/** deploy/NN-name/*.yaml as NN-name-file.yaml, in the order of application. */
async function collectManifests(to: string): Promise<void> {
  for (const file of await filesOf(join(ROOT, 'deploy'))) {
    if (!file.endsWith('.yaml')) continue;
    await copyFile(file, join(to, file.slice(join(ROOT, 'deploy').length + 1).replaceAll('/', '-')));
  }
}

async function filesOf(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && !entry.name.startsWith('.'))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

async function pack(work: string, inputs: Inputs, options: BuildOptions): Promise<void> {
  options.onDetail('root file system');
  const root = join(work, 'root');
  // Hard links to the cached Debian tree: nothing in it is written to in place.
  await runChecked('cp', ['-al', inputs.debian, root], { timeoutMs: 300_000, signal: options.signal });
  await addOwnFiles(root, inputs);
  await packSquashfs(root, join(work, 'image/node.squashfs'), options.signal);
  await writeFile(join(work, 'image/reference'), await referenceOf(join(work, 'image')));
  const sbom = await runChecked('npm', ['sbom', '--sbom-format', 'cyclonedx', '--omit', 'dev'], {
    timeoutMs: 120_000,
    signal: options.signal,
    cwd: ROOT,
    env: process.env as Record<string, string>,
    maxOutputBytes: 64 << 20,
  });
  await writeFile(join(work, 'image/sbom.cdx.json'), sbom);
}

async function referenceOf(folder: string): Promise<string> {
  const hash = createHash('sha256');
  for (const { file } of STAGES) hash.update(await sha256OfFile(join(folder, file)));
  return `sha256:${hash.digest('hex')}`;
}

async function describe(folder: string): Promise<BuiltImage> {
  const reference = await readFile(join(folder, 'reference'), 'utf8');
  return { reference, folder, measurements: await predictMeasurements(folder) };
}

/** What builds that were killed have left. */
async function sweep(): Promise<void> {
  for (const name of await readdir(cacheFolder('image'))) {
    if (name.startsWith('.node-') || name.startsWith('.services-'))
      await rm(cacheFolder('image', name), { recursive: true, force: true });
  }
}
