import { join } from 'node:path';
import { isOneOf, sha256OfFile } from './cache.ts';
import type { KubernetesRelease } from './catalogue.ts';
import {
  type ComponentManifest,
  componentsFolder,
  filesOf,
  knownHashes,
  type ReleaseFile,
  readManifest,
  releaseOf,
} from './manifest.ts';
import { OFFICIAL_SHA256 } from './official.ts';
import { PINNED_FILES } from './pinned.ts';

/** How a file of the cache compares with what it should be. */
export interface ComponentCheck {
  readonly name: string;
  readonly outcome: 'passed' | 'missing' | 'failed';
  readonly detail: string;
}

/**
 * Hashes every file of a version and compares it with what was recorded when it was made, and, where the catalogue
 * pins its bytes, with the catalogue: a cache whose record was changed too is told.
 */
export async function verifyComponents(version: string): Promise<ComponentCheck[]> {
  const release = releaseOf(version);
  const manifest = await readManifest(version);
  if (manifest === undefined)
    return [
      { name: version, outcome: 'missing', detail: `not built; run: asterism components build ${version}` },
    ];
  return checkManifest(release, manifest);
}

/** As {@link verifyComponents}, of a manifest that was read. */
export async function checkManifest(
  release: KubernetesRelease,
  manifest: ComponentManifest,
): Promise<ComponentCheck[]> {
  const files = filesOf(release);
  const results: ComponentCheck[] = [];
  for (const file of files) results.push({ name: file.name, ...(await checkFile(release, manifest, file)) });
  for (const { name, file } of manifest.components) {
    if (files.some((wanted) => wanted.file === file)) continue;
    results.push({ name, outcome: 'failed', detail: `${file} is recorded, but is no part of the release` });
  }
  return results;
}

async function checkFile(
  release: KubernetesRelease,
  { components }: ComponentManifest,
  wanted: ReleaseFile,
): Promise<Omit<ComponentCheck, 'name'>> {
  const path = join(componentsFolder(release.version), wanted.file);
  const recorded = components.find(({ file }) => file === wanted.file);
  if (recorded === undefined) return { outcome: 'missing', detail: `${path} is not recorded` };
  for (const field of ['name', 'installPath', 'extract'] as const) {
    if (recorded[field] === wanted[field]) continue;
    const detail = `${path} is recorded with ${field} ${recorded[field]}, the catalogue says ${wanted[field]}`;
    return { outcome: 'failed', detail };
  }
  const found = await sha256OfFile(path).catch(() => undefined);
  if (found === undefined) return { outcome: 'missing', detail: `${path} is not there` };
  if (`sha256:${found}` !== recorded.hash)
    return { outcome: 'failed', detail: `${path} has sha256:${found}, expected ${recorded.hash}` };
  const allowed = await allowedHashes(release, wanted);
  if (allowed.length === 0) return { outcome: 'passed', detail: `${recorded.hash}, as it was made` };
  if (allowed.includes(found))
    return { outcome: 'passed', detail: `${recorded.hash}, as the catalogue pins it` };
  const pins = allowed.join(' or sha256:');
  return { outcome: 'failed', detail: `${path} has sha256:${found}, the catalogue pins sha256:${pins}` };
}

/** Hex SHA-256 that a file may have by the catalogue; empty where its bytes are not pinned. */
async function allowedHashes({ version }: KubernetesRelease, wanted: ReleaseFile): Promise<string[]> {
  const [program] = wanted.programs;
  if (program !== undefined && wanted.file === `bin/${program}`) return knownHashes(version, program);
  for (const name of wanted.programs) {
    // An image with a published program has other bytes than one with the program that we build.
    const official = OFFICIAL_SHA256[version]?.[name];
    if (await isOneOf(join(componentsFolder(version), 'bin', name), [official])) return [];
  }
  return [PINNED_FILES[version]?.[wanted.file]].filter((pin) => pin !== undefined);
}
