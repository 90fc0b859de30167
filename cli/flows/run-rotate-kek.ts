import type { ExternalKmsConfig } from '@asterism/config/kms-config';
import {
  generateMasterSecret,
  MASTER_SECRET_FILE,
  type MasterSecret,
  measurementSecretOf,
  NEXT_MASTER_SECRET_FILE,
  renderMasterSecret,
} from '@asterism/config/master-secret';
import type { ClusterState, StoredKeyHome } from '@asterism/config/state';
import { type Workspace, WorkspaceError } from '@asterism/config/workspace';
import { NO_STORE_URI, renderClusterKmsUri } from '@asterism/kms/cluster-uri';
import type { HomeConfiguration } from '@asterism/kms/key-configuration';
import { parseKmsUri } from '@asterism/kms/uri';
import type { Context } from '../context.ts';
import type { AdminApi } from './admin-api.ts';
import { externalKeyHome, homeWithCredentials } from './key-home.ts';
import { listStoredKeys } from './list-keys.ts';
import { checkOfCluster, masterSecretOfFile } from './master-secret-source.ts';
import { rewrapKeys } from './rewrap-order.ts';
import { type DiskPlan, moveDisks, refreshDisks } from './rotate-disk.ts';
import {
  checkMoved,
  checkRefreshed,
  introduce,
  type RotationPlan,
  type RotationResult,
  retire,
  withdraw,
  withNextHome,
} from './rotate-kek.ts';

export interface RotateKekOptions {
  /** Disks that no node has any more are given up with the old key. */
  readonly giveUpMissing: boolean;
}

/**
 * Rotates the key encryption key of the workspace's cluster while it runs. Stopped anywhere, it goes on when it is run
 * again: what is next is saved before the cluster hears of it, and the cluster says how far it is.
 */
export async function runRotateKek(
  context: Pick<Context, 'workspace' | 'progress' | 'signal'>,
  api: AdminApi,
  disks: Omit<DiskPlan, 'onStep'>,
  options: RotateKekOptions,
): Promise<RotationResult> {
  const { workspace, progress } = context;
  return workspace.exclusively(() =>
    progress.phase('rotate kek', async (onStep) => {
      const state = await workspace.requireState();
      const config = await workspace.config();
      const { kms } = config;
      const plan = { ...disks, onStep };
      if (state.keyHome === undefined) {
        if (kms.type === 'cluster') return rotateMasterSecret({ ...context, api }, state, plan, options);
        throw moved(
          `the keys of this cluster are derived from its master secret, not kept by kms.type: ${kms.type}`,
        );
      }
      if (kms.type === 'cluster')
        throw moved('an external KMS keeps the keys of this cluster, not kms.type: cluster');
      return rotateExternal({ ...context, api }, state, state.keyHome, kms, plan);
    }),
  );
}

type Rotation = Pick<Context, 'workspace' | 'signal'> & { readonly api: AdminApi };

/** Keys are derived: another master secret gives other keys, so every disk gets a new one. */
async function rotateMasterSecret(
  rotation: Rotation,
  state: ClusterState,
  disks: DiskPlan,
  { giveUpMissing }: RotateKekOptions,
): Promise<RotationResult> {
  const { workspace } = rotation;
  const secret = await nextMasterSecret(workspace, state);
  const generation = secret.generation ?? 1;
  const next = { kmsUri: renderClusterKmsUri(secret), storageUri: NO_STORE_URI };
  const plan = planOf(rotation, next, disks);
  disks.onStep(`master secret of generation ${generation}: into every KeyService`);
  let outcomes: RotationResult['disks'] = [];
  if ((await introduce(plan)) === 'introduced') {
    const moved = await moveDisks(disks, generation);
    checkMoved(moved, giveUpMissing);
    outcomes = moved.disks;
  }
  disks.onStep('the former master secret: out of every KeyService');
  await retire(plan);
  await takeNextSecret(workspace, generation);
  return { generation, rewrapped: 0, disks: outcomes };
}

/** Keys are stored: they stay as they are, and are wrapped by another key encryption key. */
async function rotateExternal(
  rotation: Rotation,
  state: ClusterState,
  present: StoredKeyHome,
  kms: ExternalKmsConfig,
  disks: DiskPlan,
): Promise<RotationResult> {
  const { workspace, api, signal } = rotation;
  const generation = parseKmsUri(present.kmsUri).generation + 1;
  const home = externalKeyHome(kms, state.clusterId ?? '', generation);
  if (home.storageUri !== present.storageUri) {
    throw moved(
      'the configuration names another store than the cluster has: a rotation changes the key encryption key only; change kms.store back',
    );
  }
  if (state.nextKeyHome !== undefined && state.nextKeyHome.kmsUri !== home.kmsUri)
    await giveUp(rotation, state, state.nextKeyHome, disks.onStep);
  // Read before anything is saved: what cannot be begun leaves no trace.
  const next = await homeWithCredentials(home, workspace.folder);
  await workspace.writeState({ ...state, nextKeyHome: home });
  const plan = planOf(rotation, next, disks);
  disks.onStep(`key encryption key of generation ${generation}: into every KeyService`);
  let rewrapped = 0;
  if ((await introduce(plan)) === 'introduced')
    rewrapped = await rewrapKeys(api, generation, signal, disks.onStep);
  disks.onStep('the former key: out of every KeyService');
  await retire(plan);
  // The copies in the headers of disks come last: KeyServices that still knew the former key could give its envelopes.
  const outcomes = await refreshDisks(disks);
  checkRefreshed(outcomes);
  await workspace.writeState(withNextHome(await workspace.requireState()));
  return { generation, rewrapped, disks: outcomes };
}

/**
 * A rotation that was begun is given up for another one, say because the name of its key was mistyped. Once a key is
 * wrapped by that one it has to end.
 */
async function giveUp(
  { workspace, api, signal }: Rotation,
  state: ClusterState,
  begun: StoredKeyHome,
  onStep: (text: string) => void,
): Promise<void> {
  const { generation } = parseKmsUri(begun.kmsUri);
  const refuseIfUsed = async () => {
    const keys = await listStoredKeys(state, workspace, api, Number.POSITIVE_INFINITY, signal);
    if (keys.some((key) => key.generation === generation))
      throw moved(
        'a rotation to another KMS or key is under way, and some keys are wrapped by it already; change the configuration back and end it first',
      );
  };
  await refuseIfUsed();
  onStep('the key of a rotation that was given up: out of every KeyService');
  await withdraw({ api, signal, onStep }, begun.kmsUri);
  await refuseIfUsed();
}

function planOf({ api, signal }: Rotation, next: HomeConfiguration, { onStep }: DiskPlan): RotationPlan {
  return { api, next, signal, onStep };
}

/** On disk before anybody hears of it: who has no master secret has no keys. */
async function nextMasterSecret(workspace: Workspace, state: ClusterState): Promise<MasterSecret> {
  const prepared = await workspace.masterSecret(workspace.path(NEXT_MASTER_SECRET_FILE));
  if (prepared !== undefined) {
    checkOfCluster(prepared, state, workspace.path(NEXT_MASTER_SECRET_FILE));
    return prepared;
  }
  const present = await masterSecretOfFile({ workspace }, undefined);
  checkOfCluster(present, state, workspace.path(MASTER_SECRET_FILE));
  const { generation = 1 } = present;
  const secret: MasterSecret = {
    ...generateMasterSecret(),
    generation: generation + 1,
    // The id of the cluster hangs on it, and stays.
    measurementSecret: measurementSecretOf(present),
  };
  await workspace.create(NEXT_MASTER_SECRET_FILE, renderMasterSecret(secret));
  return secret;
}

/** The former one stays under another name: old backups of disks may need it. */
async function takeNextSecret(workspace: Workspace, generation: number): Promise<void> {
  const former = await workspace.read(MASTER_SECRET_FILE);
  const name = retiredSecretFile(generation - 1);
  // Where this was cut off, it is there already.
  if (former !== undefined && former !== (await workspace.read(name))) await workspace.create(name, former);
  await workspace.rename(NEXT_MASTER_SECRET_FILE, MASTER_SECRET_FILE);
}

/** Name in the workspace of a master secret that opens nothing of the cluster any more. */
export const retiredSecretFile = (generation: number): string =>
  `asterism-mastersecret.retired-${generation}.json`;

function moved(why: string): WorkspaceError {
  return new WorkspaceError('ERR_OTHER_KMS', why);
}
