import { join } from 'node:path';
import { sha256OfFile } from './cache.ts';
import type { KubernetesRelease } from './catalogue.ts';
import { OFFICIAL_SHA256 } from './official.ts';
import { PINNED_FILES, PINNED_PROGRAMS } from './pinned.ts';
import { componentsFolder, readManifest, releaseOf } from './provide.ts';

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
    const allowed = pinnedHashesOf(release, file);
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
function pinnedHashesOf(release: KubernetesRelease, file: string): string[] {
  const { version } = release;
  const name = file.startsWith('bin/') ? file.slice(4) : undefined;
  const image = release.images.find((each) => file === `images/${each.name}.tar`);
  const pins =
    name === undefined
      ? // An image with published programs has other bytes than with those that we build.
        Object.values(image?.programs ?? {}).some((program) => OFFICIAL_SHA256[version]?.[program])
        ? []
        : [PINNED_FILES[version]?.[file]]
      : [PINNED_PROGRAMS[version]?.[name], OFFICIAL_SHA256[version]?.[name]];
  return pins.filter((pin) => pin !== undefined);
}
