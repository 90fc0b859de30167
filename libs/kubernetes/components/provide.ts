import { createHash } from 'node:crypto';
import {
  chmod,
  copyFile,
  link,
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
import { AsterismError } from '@asterism/errors/errors';
import { runChecked } from '@asterism/runtime/program';
import { writeImageArchive } from '../oci/archive.ts';
import { type BuildOptions, buildProgram, MODULES } from './build-go.ts';
import { cacheFolder, sha256OfFile, withLock } from './cache.ts';
import {
  CNI_PLUGINS,
  type ImageRecipe,
  type KubernetesRelease,
  NODE_PROGRAMS,
  RELEASES,
} from './catalogue.ts';
import { debianTree } from './debian-tree.ts';
import { PINNED_PROGRAMS, type Pins } from './pinned.ts';
import { provideProgram } from './sources.ts';
import { TOOLCHAIN_VERSION } from './toolchain.ts';

/** One file that nodes install. */
export interface ComponentEntry {
  readonly name: string;
  /** Relative to the version's folder. */
  readonly file: string;
  /** `sha256:` and 64 hexadecimal digits. */
  readonly hash: string;
  readonly size: number;
  readonly installPath: string;
  readonly extract: boolean;
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

/**
 * Builds what is missing of a version. Each file appears under its name only when whole, so a build that was killed
 * goes on where it was. A second run does nothing.
 */
export async function provideComponents(version: string, options: BuildOptions): Promise<ComponentManifest> {
  const release = releaseOf(version);
  const recipe = await recipeOf(release);
  const present = await readManifest(version);
  if (present?.recipe === recipe && (await allThere(present))) return present;
  const folder = componentsFolder(version);
  return withLock(folder, async () => {
    await prepareFolder(folder, recipe, PINNED_PROGRAMS[version]);
    for (const program of release.programs) {
      await provideProgram(program, PINNED_PROGRAMS[version]?.[program.name], join(folder, 'bin'), options);
    }
    for (const image of release.images) await buildImage(image, folder, options);
    await packCniPlugins(folder, options);
    return writeManifest(release, recipe, folder);
  });
}

/** Builds containerd and its tools for the node image. @returns their folder */
export async function provideNodePrograms(options: BuildOptions): Promise<string> {
  const folder = componentsFolder(`node-${NODE_PROGRAMS[0]!.module}`);
  await withLock(folder, async () => {
    for (const program of NODE_PROGRAMS) await buildProgram(program, folder, options);
  });
  return folder;
}

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

/**
 * Makes a folder ready to be filled by a recipe. What another recipe made is not gone on with, but for programs whose
 * bytes are the pinned ones; what a killed build left half done is removed.
 */
async function prepareFolder(folder: string, recipe: string, pinned: Pins): Promise<void> {
  await removeMatching(folder, (name) => name.startsWith('.root-'));
  await removeMatching(join(folder, 'images'), (name) => name.startsWith('.'));
  await removeMatching(join(folder, 'bin'), (name) => name.startsWith('.'));
  const mark = join(folder, 'recipe');
  if ((await readFile(mark, 'utf8').catch(() => '')) === recipe) return;
  for (const name of ['images', 'cni-plugins.tar.gz', MANIFEST]) {
    await rm(join(folder, name), { recursive: true, force: true });
  }
  await removeMatching(join(folder, 'bin'), async (name) => {
    const found = await sha256OfFile(join(folder, 'bin', name)).catch(() => undefined);
    return found === undefined || found !== pinned?.[name];
  });
  await writeFile(`${mark}.part`, recipe);
  await rename(`${mark}.part`, mark);
}

async function removeMatching(
  folder: string,
  matches: (name: string) => boolean | Promise<boolean>,
): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    if (await matches(name)) await rm(join(folder, name), { recursive: true, force: true });
  }
}

/** Compares every file with the manifest. */
export async function verifyComponents(
  version: string,
): Promise<{ name: string; outcome: 'passed' | 'missing' | 'failed'; detail: string }[]> {
  releaseOf(version);
  const manifest = await readManifest(version);
  if (manifest === undefined)
    return [
      { name: version, outcome: 'missing', detail: `not built; run: asterism components build ${version}` },
    ];
  const results = [];
  for (const { name, file, hash } of manifest.components) {
    const path = join(componentsFolder(version), file);
    const found = await sha256OfFile(path).catch(() => undefined);
    if (found === undefined)
      results.push({ name, outcome: 'missing' as const, detail: `${path} is not there` });
    else if (`sha256:${found}` === hash) results.push({ name, outcome: 'passed' as const, detail: hash });
    else
      results.push({
        name,
        outcome: 'failed' as const,
        detail: `${path} has sha256:${found}, expected ${hash}`,
      });
  }
  return results;
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

async function buildImage(image: ImageRecipe, folder: string, options: BuildOptions): Promise<void> {
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
    const { reference, entrypoint, user } = image;
    await writeImageArchive(
      root,
      { reference, ...(entrypoint && { entrypoint }), ...(user && { user }) },
      target,
      options.signal,
    );
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

async function packCniPlugins(folder: string, options: BuildOptions): Promise<void> {
  const target = join(folder, 'cni-plugins.tar.gz');
  if (await stat(target).catch(() => undefined)) return;
  const flags = [
    '--sort=name',
    '--mtime=@0',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '--format=ustar',
    '--mode=755',
  ];
  await runChecked(
    'tar',
    [
      ...flags,
      '--use-compress-program=gzip -n',
      '-C',
      join(folder, 'bin'),
      '-cf',
      `${target}.part`,
      ...CNI_PLUGINS,
    ],
    { timeoutMs: 120_000, signal: options.signal },
  );
  await rename(`${target}.part`, target);
}

async function writeManifest(
  release: KubernetesRelease,
  recipe: string,
  folder: string,
): Promise<ComponentManifest> {
  const files = [
    ...Object.entries(release.install).map(([name, to]) => ({
      name,
      file: `bin/${name}`,
      installPath: `${to}/${name}`,
      extract: false,
    })),
    { name: 'cni-plugins', file: 'cni-plugins.tar.gz', installPath: '/opt/cni/bin', extract: true },
    ...release.images.map(({ name }) => ({
      name: `image ${name}`,
      file: `images/${name}.tar`,
      installPath: `/run/state/images/${name}.tar`,
      extract: false,
    })),
  ];
  const components: ComponentEntry[] = [];
  for (const file of files) {
    const path = join(folder, file.file);
    components.push({ ...file, hash: `sha256:${await sha256OfFile(path)}`, size: (await stat(path)).size });
  }
  const manifest = { version: release.version, recipe, components };
  await writeFile(join(folder, `${MANIFEST}.part`), `${JSON.stringify(manifest, null, 2)}\n`);
  await rename(join(folder, `${MANIFEST}.part`), join(folder, MANIFEST));
  return manifest;
}
