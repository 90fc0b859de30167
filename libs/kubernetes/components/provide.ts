import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AsterismError, PolicyError, VerificationError } from '@asterism/errors/errors';
import { type BuildOptions, MODULES } from './build-go.ts';
import { cacheFolder, sha256OfFile, withLock } from './cache.ts';
import { CNI_PLUGINS, type GoProgram, type KubernetesRelease, NODE_PROGRAMS, RELEASES } from './catalogue.ts';
import { OFFICIAL_SHA256, officialUrl } from './official.ts';
import { buildImage, packCniPlugins } from './pack.ts';
import { NODE_SET, PINNED_FILES, PINNED_PROGRAMS } from './pinned.ts';
import { isOneOf, prepareFolder, recipeOf, removeMatching } from './recipe.ts';
import { type OfficialFile, provideProgram } from './sources.ts';
import { TOOLCHAIN_VERSION } from './toolchain.ts';

/** One file that nodes install. */
export interface ComponentEntry {
  readonly name: string;
  /** Relative to the version's folder. */
  readonly file: string;
  /** `sha256:` and 64 hexadecimal digits. */
  readonly hash: string;
  /** Bytes. */
  readonly size: number;
  readonly installPath: string;
  readonly extract: boolean;
  /** What it was made from, for a person. */
  readonly source: string;
}

export interface ComponentManifest {
  readonly version: string;
  /** SHA-256 over everything that the files were made from. */
  readonly recipe: string;
  readonly components: readonly ComponentEntry[];
}

/** What to make programs from. */
export interface ProvideOptions extends BuildOptions {
  /**
   * Take what the Kubernetes project publishes where it publishes programs. `only`: never build these. `first`: build
   * those whose published hash is not pinned or whose address does not answer.
   */
  readonly official?: 'only' | 'first';
}

const MANIFEST = 'components.json';

/** @throws AsterismError ERR_KUBERNETES_VERSION */
export function releaseOf(version: string): KubernetesRelease {
  const found = RELEASES.find((release) => release.version === version);
  if (found !== undefined) return found;
  const known = RELEASES.map((release) => release.version).join(', ');
  throw new AsterismError(
    'ERR_KUBERNETES_VERSION',
    `${version} is not in the catalogue; there are: ${known}`,
  );
}

export function componentsFolder(version: string): string {
  return cacheFolder('components', version);
}

/** What is in the cache of a version; undefined where it was never built to the end. */
export async function readManifest(version: string): Promise<ComponentManifest | undefined> {
  const text = await readFile(join(componentsFolder(version), MANIFEST), 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as ComponentManifest);
}

/**
 * Makes what is missing of a version. Each file appears under its name only when whole and, where the catalogue pins
 * its hash, only with these bytes; a run that was killed is gone on with. A second run does nothing.
 *
 * @throws VerificationError ERR_COMPONENT_HASH
 * @throws PolicyError ERR_NO_OFFICIAL_HASH `only` official is asked for a version whose published hashes are not pinned
 */
export async function provideComponents(
  version: string,
  options: ProvideOptions,
): Promise<ComponentManifest> {
  const release = releaseOf(version);
  let sources = officialSources(release, options);
  const recipe = await recipeOf(release);
  const present = await readManifest(version);
  if (present?.recipe === recipe && (await allThere(present))) return present;
  const folder = componentsFolder(version);
  return withLock(folder, async () => {
    const known = (name: string) => [PINNED_PROGRAMS[version]?.[name], OFFICIAL_SHA256[version]?.[name]];
    await prepareFolder(folder, recipe, known);
    for (const program of release.programs) {
      const official = sources[program.name];
      const source = { pinned: PINNED_PROGRAMS[version]?.[program.name], ...(official && { official }) };
      const built = await provideProgram(program, source, join(folder, 'bin'), options);
      // An address that does not answer once is not waited for again.
      if (official !== undefined && built) sources = {};
    }
    for (const image of release.images) await buildImage(image, folder, options);
    await packCniPlugins(folder, options);
    return writeManifest(release, recipe, folder);
  });
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
  await withLock(folder, async () => {
    const pins = PINNED_PROGRAMS[NODE_SET];
    // The folder becomes part of the measured image: what is not the pinned bytes goes.
    await removeMatching(folder, async (name) => !(await isOneOf(join(folder, name), [pins?.[name]])));
    for (const program of NODE_PROGRAMS) {
      await provideProgram(program, { pinned: pins?.[program.name] }, folder, options);
    }
    await removeMatching(folder, (name) => name.startsWith('.'));
  });
  return folder;
}

/** For the wire: where the nodes of a cluster find each component. @param base URL of a mirror, without slash */
export function componentsForWire(manifest: ComponentManifest, base: string) {
  return manifest.components.map(({ hash, installPath, extract }) => ({
    url: `${base}/components/${hash.slice('sha256:'.length)}`,
    hash,
    installPath,
    extract,
  }));
}

async function allThere(manifest: ComponentManifest): Promise<boolean> {
  for (const { file, size } of manifest.components) {
    const found = await stat(join(componentsFolder(manifest.version), file)).catch(() => undefined);
    if (found?.size !== size) return false;
  }
  return true;
}

async function writeManifest(
  release: KubernetesRelease,
  recipe: string,
  folder: string,
): Promise<ComponentManifest> {
  const programs = new Map<string, { sha256: string; source: string }>();
  for (const program of release.programs) {
    const sha256 = await sha256OfFile(join(folder, 'bin', program.name));
    programs.set(program.name, { sha256, source: await sourceOf(program, release.version, sha256) });
  }
  const components: ComponentEntry[] = [];
  const add = async (file: Omit<ComponentEntry, 'hash' | 'size' | 'source'>, names: string[], also = '') => {
    const path = join(folder, file.file);
    const sha256 = await sha256OfFile(path);
    const pinned = PINNED_FILES[release.version]?.[file.file];
    // With programs that others built the file has other bytes, which no one can know.
    const ours = names.every(
      (name) => programs.get(name)?.sha256 === PINNED_PROGRAMS[release.version]?.[name],
    );
    if (pinned !== undefined && ours && sha256 !== pinned) {
      await rm(path);
      throw new VerificationError(
        'ERR_COMPONENT_HASH',
        `${path} would be sha256:${sha256}, but the catalogue pins sha256:${pinned}`,
      );
    }
    const source = [...new Set(names.map((name) => programs.get(name)?.source ?? name))].join('; ') + also;
    components.push({ ...file, hash: `sha256:${sha256}`, size: (await stat(path)).size, source });
  };
  for (const [name, to] of Object.entries(release.install)) {
    await add({ name, file: `bin/${name}`, installPath: `${to}/${name}`, extract: false }, [name]);
  }
  const cni = { name: 'cni-plugins', file: 'cni-plugins.tar.gz', installPath: '/opt/cni/bin', extract: true };
  await add(cni, [...CNI_PLUGINS]);
  for (const { name, programs: contents, packages } of release.images) {
    const [file, installPath] = [`images/${name}.tar`, `/run/state/images/${name}.tar`];
    const also = packages === undefined ? '' : `; Debian packages ${packages.join(', ')}`;
    await add({ name: `image ${name}`, file, installPath, extract: false }, Object.values(contents), also);
  }
  const manifest = { version: release.version, recipe, components };
  await writeFile(join(folder, `${MANIFEST}.part`), `${JSON.stringify(manifest, null, 2)}\n`);
  await rename(join(folder, `${MANIFEST}.part`), join(folder, MANIFEST));
  return manifest;
}

async function sourceOf(program: GoProgram, version: string, sha256: string): Promise<string> {
  if (sha256 === OFFICIAL_SHA256[version]?.[program.name]) return officialUrl(version, program.name);
  const wrapper = await readFile(join(MODULES, program.module, 'go.mod'), 'utf8');
  const required = /^require (\S+ \S+)$/m.exec(wrapper)?.[1] ?? 'own source';
  return `${required}, built with ${TOOLCHAIN_VERSION.replace('v0.0.1-', '')}`;
}
