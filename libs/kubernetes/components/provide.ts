import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PolicyError } from '@asterism/errors/errors';
import type { BuildOptions } from './build-go.ts';
import { isOneOf, removeMatching } from './cache.ts';
import { type KubernetesRelease, NODE_PROGRAMS } from './catalogue.ts';
import type { DebianPackage } from './debian-packages.ts';
import { useDebianTree } from './debian-tree.ts';
import { withLock } from './lock.ts';
import {
  type ComponentManifest,
  componentsFolder,
  knownHashes,
  readManifest,
  releaseOf,
  writeManifest,
} from './manifest.ts';
import { OFFICIAL_SHA256, officialUrl } from './official.ts';
import { buildImage, packCniPlugins } from './pack.ts';
import { NODE_SET, PINNED_FILES, PINNED_PROGRAMS } from './pinned.ts';
import { pruneComponents } from './prune.ts';
import { recipeOf } from './recipe.ts';
import { COMPONENTS_SBOM, writeComponentsSbom } from './sbom-components.ts';
import { type OfficialFile, provideProgram } from './sources.ts';
import { checkManifest } from './verify.ts';

/** What to make programs from. */
export interface ProvideOptions extends BuildOptions {
  /**
   * Take what the Kubernetes project publishes where it publishes programs. `only`: never build these. `first`: build
   * those whose published hash is not pinned or whose address does not answer.
   */
  readonly official?: 'only' | 'first';
  /** Make the images that have files of Debian packages anew, of the packages as they are today. */
  readonly refresh?: boolean;
}

/**
 * Makes what is missing of a version, or is not what it should be by its hash. Each file appears under its name only
 * when whole and, where the catalogue pins its hash, only with these bytes; a run that was killed is gone on with. A
 * second run hashes everything and does nothing. Who else works on the version is waited for.
 *
 * @throws VerificationError ERR_COMPONENT_HASH
 * @throws PolicyError ERR_NO_OFFICIAL_HASH `only` official is asked for a version whose published hashes are not pinned
 */
export async function provideComponents(
  version: string,
  options: ProvideOptions,
): Promise<ComponentManifest> {
  const release = releaseOf(version);
  const sources = officialSources(release, options);
  const recipe = await recipeOf(release);
  const present = options.refresh ? undefined : await presentComponents(release, recipe);
  if (present !== undefined) return present;
  const folder = componentsFolder(version);
  return withLock(folder, options, async () => {
    // Who was waited for may have made it.
    const now = options.refresh ? undefined : await presentComponents(release, recipe);
    if (now !== undefined) return now;
    await prepareFolder(folder, release);
    const names = release.programs.map(({ name }) => name);
    await providePrograms(release, names, sources, options);
    const packages = await packFiles(release, folder, options);
    await writeComponentsSbom(release, folder, packages);
    const manifest = await writeManifest(release, recipe, folder);
    await pruneComponents(options);
    return manifest;
  });
}

/** What there is of a release, if all of it is there and right. */
async function presentComponents(
  release: KubernetesRelease,
  recipe: string,
): Promise<ComponentManifest | undefined> {
  const manifest = await readManifest(release.version);
  if (manifest?.recipe !== recipe) return undefined;
  const bill = await stat(join(componentsFolder(release.version), COMPONENTS_SBOM)).catch(() => undefined);
  if (bill === undefined) return undefined;
  const checks = await checkManifest(release, manifest);
  return checks.every(({ outcome }) => outcome === 'passed') ? manifest : undefined;
}

/**
 * Some programs of a version, for who does not need all of it.
 * @returns the folder that they are in
 * @throws VerificationError ERR_COMPONENT_HASH
 */
export async function provideSomePrograms(
  version: string,
  names: readonly string[],
  options: BuildOptions,
): Promise<string> {
  const release = releaseOf(version);
  const bin = join(componentsFolder(version), 'bin');
  const there = await Promise.all(names.map((name) => isOneOf(join(bin, name), knownHashes(version, name))));
  if (there.includes(false)) {
    await withLock(componentsFolder(version), options, () => providePrograms(release, names, {}, options));
  }
  return bin;
}

/** Removes what a killed build left half done, and programs that the release has not. */
async function prepareFolder(folder: string, { programs }: KubernetesRelease): Promise<void> {
  for (const part of ['bin', 'images']) {
    await mkdir(join(folder, part), { recursive: true });
    await removeMatching(join(folder, part), (name) => name.startsWith('.'));
  }
  await removeMatching(folder, (name) => name.startsWith('.'));
  await removeMatching(join(folder, 'bin'), (name) => programs.every((program) => program.name !== name));
}

/** A program that is there is kept only if its bytes are those of a pin; without a pin it is always made anew. */
async function providePrograms(
  { version, programs }: KubernetesRelease,
  names: readonly string[],
  official: Readonly<Record<string, OfficialFile>>,
  options: BuildOptions,
): Promise<void> {
  let sources = official;
  const bin = join(componentsFolder(version), 'bin');
  for (const program of programs.filter(({ name }) => names.includes(name))) {
    if (await isOneOf(join(bin, program.name), knownHashes(version, program.name))) continue;
    await rm(join(bin, program.name), { recursive: true, force: true });
    const published = sources[program.name];
    const source = {
      pinned: PINNED_PROGRAMS[version]?.[program.name],
      ...(published && { official: published }),
    };
    const built = await provideProgram(program, source, bin, options);
    // An address that does not answer once is not waited for again.
    if (published !== undefined && built) sources = {};
  }
}

/**
 * Makes the files that programs are packed into, but those that are there with pinned bytes.
 * @returns the Debian packages in each image, by its name
 */
async function packFiles(
  release: KubernetesRelease,
  folder: string,
  options: ProvideOptions,
): Promise<Map<string, readonly DebianPackage[]>> {
  const isPinned = (file: string) => isOneOf(join(folder, file), [PINNED_FILES[release.version]?.[file]]);
  if (options.refresh) {
    const lists = release.images.flatMap(({ packages }) => (packages === undefined ? [] : [packages]));
    for (const packages of new Set(lists)) await useDebianTree(packages, options, async () => {});
  }
  const packages = new Map<string, readonly DebianPackage[]>();
  const { signal, onDetail } = options;
  for (const image of release.images) {
    if (await isPinned(`images/${image.name}.tar`)) continue;
    packages.set(image.name, await buildImage(image, folder, { signal, onDetail }));
  }
  if (!(await isPinned('cni-plugins.tar.gz'))) await packCniPlugins(folder, options);
  return packages;
}

/** Where to download the programs that Kubernetes publishes. Fails closed: without a pinned hash nothing is taken. */
function officialSources(
  release: KubernetesRelease,
  { official, onDetail }: ProvideOptions,
): Readonly<Record<string, OfficialFile>> {
  if (official === undefined) return {};
  const sources: Record<string, OfficialFile> = {};
  const unknown: string[] = [];
  for (const { name, module } of release.programs) {
    if (module !== `kubernetes-${release.version}`) continue;
    const sha256 = OFFICIAL_SHA256[release.version]?.[name];
    if (sha256 === undefined) unknown.push(name);
    else sources[name] = { url: officialUrl(release.version, name), sha256, orBuild: official === 'first' };
  }
  if (unknown.length === 0) return sources;
  const why =
    `the published SHA-256 of ${unknown.join(', ')} ${release.version} is not pinned in the catalogue, so a download ` +
    'could not be checked';
  if (official === 'only') {
    const advice = `build them instead: asterism components build ${release.version}`;
    throw new PolicyError('ERR_NO_OFFICIAL_HASH', `${why}; ${advice}`);
  }
  onDetail(`${why}: built instead`);
  return sources;
}

/** Builds containerd and its tools for the node image. @returns their folder, with nothing else in it */
export async function provideNodePrograms(options: BuildOptions): Promise<string> {
  const folder = componentsFolder(`node-${NODE_PROGRAMS[0]!.module}`);
  const pins = PINNED_PROGRAMS[NODE_SET];
  const isPinned = (name: string) => isOneOf(join(folder, name), [pins?.[name]]);
  const isWhole = async () => {
    const names: string[] = await readdir(folder).catch(() => []);
    const pinned = await Promise.all(names.map(isPinned));
    return NODE_PROGRAMS.every(({ name }) => names.includes(name)) && !pinned.includes(false);
  };
  if (await isWhole()) return folder;
  await withLock(folder, options, async () => {
    if (await isWhole()) return;
    await mkdir(folder, { recursive: true });
    await removeMatching(folder, async (name) => !(await isPinned(name)));
    for (const program of NODE_PROGRAMS) {
      if (await isPinned(program.name)) continue;
      await provideProgram(program, { pinned: pins?.[program.name] }, folder, options);
    }
    await pruneComponents(options);
  });
  return folder;
}
