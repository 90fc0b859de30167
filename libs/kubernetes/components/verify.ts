import { join } from 'node:path';
import { sha256OfFile } from './cache.ts';
import type { KubernetesRelease } from './catalogue.ts';
import { OFFICIAL_SHA256 } from './official.ts';
import { PINNED_FILES, PINNED_PROGRAMS } from './pinned.ts';
import { componentsFolder, readManifest, releaseOf } from './provide.ts';
import { isOneOf } from './recipe.ts';

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
  const results: ComponentCheck[] = [];
  for (const { name, file, hash } of manifest.components) {
    const path = join(componentsFolder(version), file);
    const found = await sha256OfFile(path).catch(() => undefined);
    const allowed = await pinnedHashesOf(release, file);
    const check = (outcome: ComponentCheck['outcome'], detail: string) =>
      results.push({ name, outcome, detail });
    if (found === undefined) check('missing', `${path} is not there`);
    else if (`sha256:${found}` !== hash) check('failed', `${path} has sha256:${found}, expected ${hash}`);
    else if (allowed.length > 0 && !allowed.includes(found))
      check(
        'failed',
        `${path} has sha256:${found}, the catalogue pins sha256:${allowed.join(' or sha256:')}`,
      );
    else check('passed', `${hash}, ${allowed.length > 0 ? 'as the catalogue pins it' : 'as it was made'}`);
  }
  return results;
}

/** Hex SHA-256 that a file may have by the catalogue; empty where its bytes are not pinned. */
async function pinnedHashesOf(release: KubernetesRelease, file: string): Promise<string[]> {
  const { version } = release;
  const official = OFFICIAL_SHA256[version];
  if (file.startsWith('bin/')) {
    const name = file.slice('bin/'.length);
    return [PINNED_PROGRAMS[version]?.[name], official?.[name]].filter((pin) => pin !== undefined);
  }
  const image = release.images.find((each) => file === `images/${each.name}.tar`);
  for (const program of Object.values(image?.programs ?? {})) {
    // An image with a published program has other bytes than one with the program that we build.
    if (await isOneOf(join(componentsFolder(version), 'bin', program), [official?.[program]])) return [];
  }
  return [PINNED_FILES[version]?.[file]].filter((pin) => pin !== undefined);
}
