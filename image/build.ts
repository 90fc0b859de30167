import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Measurements } from '@asterism/attestation/measurements';
import type { BuildOptions } from '@asterism/kubernetes/components/build-go';
import { cacheFolder, moveTreeIntoPlace, sha256OfFile } from '@asterism/kubernetes/components/cache';
import { PAUSE_REFERENCE } from '@asterism/kubernetes/components/catalogue';
import { withLock } from '@asterism/kubernetes/components/lock';
import { provideNodePrograms } from '@asterism/kubernetes/components/provide';
import { tarFolder } from '@asterism/kubernetes/oci/archive';
import { runChecked } from '@asterism/runtime/program';
import { bundle, PINNED_NODE, ROOT } from './bundle.ts';
import { type DebianRoot, debianRoot } from './debian.ts';
import { pruneImages } from './prune.ts';
import { addOwnFiles, MASKED } from './rootfs.ts';
import { imageSbom } from './sbom.ts';
import { gatherServices, packServices, type ServicesImage } from './services-image.ts';
import { packSquashfs } from './squashfs.ts';
import { predictMeasurements, STAGES } from './stages.ts';

/** A node image in the cache. */
export interface BuiltImage {
  /** `sha256:` over the digests of all stages. */
  readonly reference: string;
  readonly folder: string;
  readonly measurements: Measurements;
}

/** Programs of the initrd stage. */
export const INITRD_SERVICES = ['disk-mapper', 'bootstrapper', 'disk-keeper'] as const;
const REFERENCE = 'reference';
/** What decides how the inputs become the image. */
const CODE = [
  'image/rootfs.ts',
  'image/sbom.ts',
  'image/services-image.ts',
  'image/squashfs.ts',
  'libs/kubernetes/components/sbom.ts',
  'libs/kubernetes/oci/archive.ts',
  'libs/kubernetes/oci/place.ts',
];

export interface ImageOptions extends BuildOptions {
  readonly refresh?: boolean;
}

/**
 * Builds the node image of this source tree, unless it is there whole: boot stage, command line, initrd with
 * disk-mapper, bootstrapper and disk-keeper, root file system. It appears under its name only when complete. Who else
 * builds one is waited for.
 *
 * @param options.refresh take Debian's packages as they are today, security updates too
 */
export async function buildNodeImage(options: ImageOptions): Promise<BuiltImage> {
  const images = cacheFolder('image');
  return withLock(images, options, async () => {
    await mkdir(images, { recursive: true });
    await pruneImages(images);
    const work = await mkdtemp(join(images, '.node-'));
    try {
      const inputs = await gatherInputs(work, options);
      const folder = join(images, inputs.id);
      let built = await readImage(folder);
      if (built === undefined) {
        await pack(work, inputs, options);
        await moveTreeIntoPlace(join(work, 'image'), folder, options.signal);
        built = await readImage(folder);
        if (built === undefined) throw new Error(`${folder} is not what was just written to it`);
      }
      // What was used last is kept longest.
      for (const used of [folder, inputs.debian.folder]) await touch(used);
      await writeFile(join(images, 'latest.part'), inputs.id);
      await rename(join(images, 'latest.part'), join(images, 'latest'));
      return built;
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });
}

/**
 * The image that was built last; undefined where there is none, or where its files are no longer those that were
 * built. It may be of an older state of the sources.
 */
export async function latestImage(): Promise<BuiltImage | undefined> {
  const id = await readFile(cacheFolder('image', 'latest'), 'utf8').catch(() => undefined);
  return id === undefined || !/^[0-9a-f]{16}$/.test(id) ? undefined : readImage(cacheFolder('image', id));
}

/** Folder of an image that is in the cache. */
export async function imageFolder(reference: string): Promise<string | undefined> {
  for (const name of await readdir(cacheFolder('image')).catch(() => [])) {
    const found = await readFile(cacheFolder('image', name, REFERENCE), 'utf8').catch(() => undefined);
    if (found === reference) return cacheFolder('image', name);
  }
  return undefined;
}

/** An image and its measurements, if its files are the ones that its reference is over. */
export async function readImage(folder: string): Promise<BuiltImage | undefined> {
  const reference = await readFile(join(folder, REFERENCE), 'utf8').catch(() => undefined);
  if (reference === undefined || reference !== (await referenceOf(folder).catch(() => undefined)))
    return undefined;
  return { reference, folder, measurements: await predictMeasurements(folder) };
}

interface Inputs {
  readonly id: string;
  readonly version: string;
  readonly nodePrograms: string;
  readonly services: ServicesImage;
  readonly debian: DebianRoot;
  readonly manifests: string;
}

/** Everything that the image depends on, cheap to make; `id` names the image. */
async function gatherInputs(work: string, options: ImageOptions): Promise<Inputs> {
  const image = join(work, 'image');
  const manifests = join(work, 'deploy');
  const parts = join(work, 'services');
  for (const folder of [image, manifests, parts]) await mkdir(folder, { recursive: true });
  const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
  await packInitrd(work, join(image, 'initrd.tar'), options.signal);
  await copyFile(join(ROOT, 'image/files/boot.sh'), join(image, 'boot.sh'));
  await writeFile(join(image, 'cmdline'), `${commandLine(version)}\n`);
  await collectManifests(manifests);
  const nodePrograms = await provideNodePrograms(options);
  const services = await gatherServices(parts, options);
  const debian = await debianRoot(options);
  const hash = createHash('sha256').update(JSON.stringify([PAUSE_REFERENCE, MASKED]));
  hash.update(debian.id).update(services.id);
  for (const file of [
    ...(await filesOf(image)),
    ...(await filesOf(manifests)),
    ...(await filesOf(join(ROOT, 'image/files'))),
    ...(await filesOf(nodePrograms)),
    ...CODE.map((path) => join(ROOT, path)),
    join(ROOT, 'package-lock.json'),
    PINNED_NODE,
  ]) {
    hash.update(await sha256OfFile(file));
  }
  return { id: hash.digest('hex').slice(0, 16), version, nodePrograms, services, debian, manifests };
}

/** What a node is told at boot. */
function commandLine(version: string): string {
  return `asterism.provider=local asterism.attestation-variant=qemu-vtpm asterism.version=${version}`;
}

/** The initrd stage: the programs that keep the disk and make the machine a node, as the launcher will run them. */
export async function packInitrd(work: string, to: string, signal: AbortSignal): Promise<void> {
  const programs = join(work, 'initrd');
  await mkdir(programs, { recursive: true });
  for (const name of INITRD_SERVICES) await bundle(`services/${name}/main.ts`, join(programs, `${name}.mjs`));
  await tarFolder(programs, to, signal);
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
  const { signal, onDetail } = options;
  const image = join(work, 'image');
  onDetail('root file system');
  const root = join(work, 'root');
  // Hard links to the cached Debian tree: it takes a blink, and files in it are replaced, never written to.
  await runChecked('cp', ['-al', inputs.debian.folder, root], { timeoutMs: 300_000, signal });
  const servicesImage = join(work, 'services.tar');
  await packServices(inputs.services, servicesImage, signal);
  await addOwnFiles(root, { ...inputs, servicesImage });
  await packSquashfs(root, join(image, 'node.squashfs'), signal);
  const reference = await referenceOf(image);
  const sbom = await imageSbom({ ...inputs, reference, debian: inputs.debian.folder, signal });
  await writeFile(join(image, 'sbom.cdx.json'), sbom);
  await writeFile(join(image, REFERENCE), reference);
}

async function referenceOf(folder: string): Promise<string> {
  const hash = createHash('sha256');
  for (const { file } of STAGES) hash.update(await sha256OfFile(join(folder, file)));
  return `sha256:${hash.digest('hex')}`;
}

async function touch(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now);
}
