import type { ClusterState } from '@asterism/config/state';
import { AsterismError } from '@asterism/errors/errors';
import type { HomeConfiguration } from '@asterism/kms/key-configuration';
import { parseKmsUri, renderKmsUri } from '@asterism/kms/uri';
import type { AdminApi } from './admin-api.ts';
import { readHomes, untilInForce, versionOf, writeHomes } from './key-configuration.ts';
import type { DiskOutcome, MovedDisks } from './rotate-disk.ts';

/** How long replicas of the KeyService have to take a new configuration. */
const PATIENCE_MS = 120_000;

export interface RotationPlan {
  readonly api: AdminApi;
  /** As the cluster's key configuration has it; the master secret of derived keys is in its URI. */
  readonly next: HomeConfiguration;
  readonly signal: AbortSignal;
  /** Default {@link PATIENCE_MS}. */
  readonly patienceMs?: number;
  onStep(text: string): void;
}

/** The key encryption key of the cluster is the next one everywhere, or the rotation goes on when this is run again. */
export interface RotationResult {
  readonly generation: number;
  /** Stored keys that were re-wrapped and proven; 0 where keys are derived. */
  readonly rewrapped: number;
  readonly disks: readonly DiskOutcome[];
}

/** Brings the next home into the configuration beside the present one, in every KeyService. */
export async function introduce(plan: RotationPlan): Promise<'introduced' | 'finished before'> {
  const { api, next, signal } = plan;
  const read = await readHomes(api, signal);
  const [first, second] = read.homes;
  const wanted = generationOf(next);
  if (second === undefined && sameHome(first, next)) return 'finished before';
  if (second !== undefined && !sameHome(second, next))
    throw changed('a rotation to another key is under way in the cluster');
  if (first === undefined || generationOf(first) !== wanted - 1)
    throw changed(`the cluster's key is not of generation ${wanted - 1}, as this workspace believes`);
  const homes = [renewed(first, next), next];
  // Written again where it is there: credentials may be newer ones.
  const version = await writeHomes(api, read, homes, signal);
  await inForce(plan, version);
  return 'introduced';
}

/**
 * Takes the former home out of the configuration. When this returns no KeyService uses the old key, also where an
 * earlier call was cut off before it knew that.
 */
export async function retire(plan: RotationPlan): Promise<void> {
  const { api, next, signal } = plan;
  const read = await readHomes(api, signal);
  const last = read.homes.at(-1);
  if (!sameHome(last, next)) throw changed('the key configuration is not the one of this rotation');
  const version =
    read.homes.length === 1 ? versionOf(read.object) : await writeHomes(api, read, [next], signal);
  await inForce(plan, version);
}

/** Takes a home that was introduced out of the configuration again; where it is not in it nothing is changed. */
export async function withdraw(plan: Omit<RotationPlan, 'next'>, kmsUri: string): Promise<void> {
  const { api, signal } = plan;
  const read = await readHomes(api, signal);
  const [first, second] = read.homes;
  const there = first !== undefined && second?.kmsUri === kmsUri;
  await inForce(plan, there ? await writeHomes(api, read, [first], signal) : versionOf(read.object));
}

/**
 * Every disk has a key of the new generation.
 * @throws AsterismError ERR_ROTATION_DISKS naming those that have not; the rotation goes on when this is run again
 */
export function checkMoved({ disks, left }: MovedDisks, skipMissing: boolean): void {
  const failed = failedOf(disks);
  if (failed !== undefined)
    throw new AsterismError(
      'ERR_ROTATION_DISKS',
      `the disks of these nodes have no new key yet: ${failed}. ` +
        'Nothing is lost, the old key stays in use; bring the nodes back and run this again',
    );
  if (left.length === 0 || skipMissing) return;
  const names = left.map(({ instanceName, diskUuid }) => `${instanceName} (disk ${diskUuid})`);
  throw new AsterismError(
    'ERR_ROTATION_DISKS',
    `these disks belong to no node of the state file, and only the old key opens them: ${names.join(', ')}. ` +
      'Run this again with --give-up-missing to lose them',
  );
}

/**
 * Every disk's header has its key as the new key encryption key wraps it.
 * @throws AsterismError ERR_ROTATION_DISKS naming those that have not; the rotation goes on when this is run again
 */
export function checkRefreshed(disks: readonly DiskOutcome[]): void {
  const failed = failedOf(disks);
  if (failed === undefined) return;
  throw new AsterismError(
    'ERR_ROTATION_DISKS',
    `all stored keys are wrapped by the new key, but the disks of these nodes still carry copies that only the former one opens: ${failed}. ` +
      'Leave the former key enabled: these nodes may need it to be recovered. Bring them back and run this again',
  );
}

function failedOf(disks: readonly DiskOutcome[]): string | undefined {
  const failed = disks.filter(({ outcome }) => outcome === 'failed');
  return failed.length === 0 ? undefined : failed.map(({ node, error }) => `${node} (${error})`).join('; ');
}

/** What the state file says when the rotation of an external home has ended. */
export function withNextHome({ nextKeyHome, ...state }: ClusterState): ClusterState {
  return { ...state, ...(nextKeyHome && { keyHome: nextKeyHome }) };
}

async function inForce(
  { api, signal, patienceMs, onStep }: Omit<RotationPlan, 'next'>,
  version: string,
): Promise<void> {
  await untilInForce(api, version, { timeoutMs: patienceMs ?? PATIENCE_MS, signal, onState: onStep });
}

/** Credentials are not compared: they come from where the user keeps them, and may have been renewed. */
function sameHome(one: HomeConfiguration | undefined, other: HomeConfiguration): boolean {
  return one?.kmsUri === other.kmsUri && one.storageUri === other.storageUri;
}

/** The former home as it is from now on: newer credentials for the same key are good for it too. */
function renewed(first: HomeConfiguration, next: HomeConfiguration): HomeConfiguration {
  const keyOf = ({ kmsUri }: HomeConfiguration) => {
    const reference = parseKmsUri(kmsUri);
    return reference.kind === 'external' ? renderKmsUri({ ...reference, generation: 1 }) : undefined;
  };
  const key = keyOf(first);
  if (key === undefined || key !== keyOf(next) || next.credentials === undefined) return first;
  return { ...first, credentials: next.credentials };
}

function generationOf({ kmsUri }: HomeConfiguration): number {
  return parseKmsUri(kmsUri).generation;
}

function changed(why: string): AsterismError {
  return new AsterismError('ERR_KEY_CONFIGURATION', `${why}; nothing was changed. See: asterism keys list`);
}
