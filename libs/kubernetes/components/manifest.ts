import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AsterismError, VerificationError } from '@asterism/errors/errors';
import { MODULES } from './build-go.ts';
import { cacheFolder, moveIntoPlace, sha256OfFile } from './cache.ts';
import { CNI_PLUGINS, type GoProgram, type KubernetesRelease, RELEASES } from './catalogue.ts';
import { OFFICIAL_SHA256, officialUrl } from './official.ts';
import { PINNED_FILES, PINNED_PROGRAMS } from './pinned.ts';
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

/** For the wire: where the nodes of a cluster find each component. @param base URL of a mirror, without slash */
export function componentsForWire(manifest: ComponentManifest, base: string) {
  return manifest.components.map(({ hash, installPath, extract }) => ({
    url: `${base}/components/${hash.slice('sha256:'.length)}`,
    hash,
    installPath,
    extract,
  }));
}

/** What the catalogue says of a file, and what it is made of. */
export interface ReleaseFile extends Pick<ComponentEntry, 'name' | 'file' | 'installPath' | 'extract'> {
  readonly programs: readonly string[];
  readonly packages?: readonly string[];
}

/** The files that nodes install of a release, in the order in which they do. */
export function filesOf(release: KubernetesRelease): ReleaseFile[] {
  return [
    ...Object.entries(release.install).map(([name, to]) => ({
      name,
      file: `bin/${name}`,
      installPath: `${to}/${name}`,
      extract: false,
      programs: [name],
    })),
    {
      name: 'cni-plugins',
      file: 'cni-plugins.tar.gz',
      installPath: '/opt/cni/bin',
      extract: true,
      programs: CNI_PLUGINS,
    },
    ...release.images.map(({ name, programs, packages }) => ({
      name: `image ${name}`,
      file: `images/${name}.tar`,
      installPath: `/run/state/images/${name}.tar`,
      extract: false,
      programs: Object.values(programs),
      ...(packages && { packages }),
    })),
  ];
}

/** Hexadecimal SHA-256 that a program of a release may have: as built, or as published. None: nobody knows yet. */
export function knownHashes(version: string, program: string): string[] {
  return [PINNED_PROGRAMS[version]?.[program], OFFICIAL_SHA256[version]?.[program]].filter(
    (hash) => hash !== undefined,
  );
}

/**
 * Hashes what was made of a release and writes it down, as what nodes will be told to install.
 * @throws VerificationError ERR_COMPONENT_HASH something is not what the catalogue pins; nothing is written
 */
export async function writeManifest(
  release: KubernetesRelease,
  recipe: string,
  folder: string,
): Promise<ComponentManifest> {
  const { version } = release;
  const programs = new Map<string, { sha256: string; source: string }>();
  for (const program of release.programs) {
    const path = join(folder, 'bin', program.name);
    const sha256 = await sha256OfFile(path);
    if (PINNED_PROGRAMS[version] !== undefined) check(path, sha256, knownHashes(version, program.name));
    programs.set(program.name, { sha256, source: await sourceOf(program, version, sha256) });
  }
  const components: ComponentEntry[] = [];
  for (const { programs: names, packages, ...file } of filesOf(release)) {
    const path = join(folder, file.file);
    const sha256 = await sha256OfFile(path);
    const pinned = PINNED_FILES[version]?.[file.file];
    // With programs that others built the file has other bytes, which no one can know.
    const ours = names.every((name) => programs.get(name)?.sha256 === PINNED_PROGRAMS[version]?.[name]);
    if (pinned !== undefined && ours) check(path, sha256, [pinned]);
    const sources = [...new Set(names.map((name) => programs.get(name)?.source ?? name))];
    if (packages !== undefined) sources.push(`Debian packages ${packages.join(', ')}`);
    components.push({
      ...file,
      hash: `sha256:${sha256}`,
      size: (await stat(path)).size,
      source: sources.join('; '),
    });
  }
  const manifest = { version, recipe, components };
  const temporary = join(folder, `.${MANIFEST}`);
  await writeFile(temporary, `${JSON.stringify(manifest, null, 2)}\n`);
  await moveIntoPlace(temporary, join(folder, MANIFEST));
  return manifest;
}

function check(path: string, found: string, pinned: readonly string[]): void {
  if (pinned.includes(found)) return;
  throw new VerificationError(
    'ERR_COMPONENT_HASH',
    `${path} has sha256:${found}, but the catalogue pins sha256:${pinned.join(' or sha256:')}: it was changed since it was made; run the build again`,
  );
}

async function sourceOf(program: GoProgram, version: string, sha256: string): Promise<string> {
  if (sha256 === OFFICIAL_SHA256[version]?.[program.name]) return officialUrl(version, program.name);
  const wrapper = await readFile(join(MODULES, program.module, 'go.mod'), 'utf8');
  const required = /^require (\S+ \S+)$/m.exec(wrapper)?.[1] ?? 'own source';
  return `${required}, built with ${TOOLCHAIN_VERSION.replace('v0.0.1-', '')}`;
}
