import { constants, copyFile, link, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AsterismError, VerificationError } from '@asterism/errors/errors';
import { sha256OfFile } from '@asterism/kubernetes/components/cache';
import {
  type ComponentManifest,
  componentsFolder,
  readManifest,
} from '@asterism/kubernetes/components/manifest';
import { clusterFolder } from './cluster.ts';

/** A cluster's own components: files named by their hexadecimal SHA-256, and the manifest that lists them. */
export const ownComponents = (uid: string): string => join(clusterFolder(uid), 'components');
const manifestOf = (uid: string): string => join(ownComponents(uid), 'components.json');

type ComponentEntry = ComponentManifest['components'][number];
const hexOf = (entry: ComponentEntry): string => entry.hash.slice('sha256:'.length);

/**
 * The components of a version as they are in the cache.
 * @throws AsterismError ERR_NOT_BUILT
 */
export async function builtComponents(version: string): Promise<ComponentManifest> {
  const manifest = await readManifest(version);
  if (manifest !== undefined) return manifest;
  throw new AsterismError(
    'ERR_NOT_BUILT',
    `the components of ${version} are not in the cache; run: asterism components build ${version}`,
  );
}

/**
 * Gives a cluster its components: what joins later, or boots after the host did, must find the very files that the
 * init named, and the cache is cleared and built anew under running clusters.
 * @throws VerificationError ERR_COMPONENT_HASH a file of the cache is not what its manifest says
 * @throws AsterismError ERR_NOT_BUILT it is not there
 */
export async function keepComponents(uid: string, manifest: ComponentManifest): Promise<void> {
  await mkdir(ownComponents(uid), { recursive: true, mode: 0o700 });
  const files = new Map(manifest.components.map((entry) => [entry.hash, entry])).values();
  await Promise.all([...files].map((entry) => keep(uid, manifest.version, entry)));
  // It appears last: where it is, every file is.
  await writeFile(`${manifestOf(uid)}.part`, JSON.stringify(manifest, null, 2), { mode: 0o600 });
  await rename(`${manifestOf(uid)}.part`, manifestOf(uid));
}

async function keep(uid: string, version: string, entry: ComponentEntry): Promise<void> {
  const from = join(componentsFolder(version), entry.file);
  const own = join(ownComponents(uid), hexOf(entry));
  const advice = `run: asterism components build ${version}`;
  try {
    // The cache replaces its files and never writes into one: a second name costs no room, and its bytes stay.
    await link(from, own).catch(() =>
      copyFile(from, own, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL),
    );
  } catch (cause) {
    throw new AsterismError(
      'ERR_NOT_BUILT',
      `${from} cannot be used: ${(cause as Error).message}; ${advice}`,
      { cause },
    );
  }
  const found = await sha256OfFile(own);
  if (found === hexOf(entry)) return;
  throw new VerificationError(
    'ERR_COMPONENT_HASH',
    `${from} has sha256:${found}, its manifest says ${entry.hash}; ${advice}`,
  );
}

/**
 * The components that a cluster was made with.
 * @throws AsterismError ERR_NO_COMPONENTS they are not there
 */
export async function componentsOfCluster(uid: string): Promise<ComponentManifest> {
  const text = await readFile(manifestOf(uid), 'utf8').catch(() => undefined);
  if (text !== undefined) return JSON.parse(text) as ComponentManifest;
  throw new AsterismError(
    'ERR_NO_COMPONENTS',
    `cluster ${uid} has no components (${manifestOf(uid)} is not there): making it did not end; ` +
      'remove it with `asterism terminate` and make it again',
  );
}
