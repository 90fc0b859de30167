import { randomBytes } from 'node:crypto';
import { toBase64, toBase64Url, toHex, toUtf8 } from '@asterism/bytes/encoding';
import type { ClusterConfig } from '@asterism/config/cluster-config';
import { type ClusterState, STATE_FILE } from '@asterism/config/state';
import { type Workspace, WorkspaceError } from '@asterism/config/workspace';
import { hash } from 'bcryptjs';
import type { Machines, Options } from '../machines.ts';

const BCRYPT_COST = 10;

/** What tells a new cluster from all others. */
export const newUid = (): string => toHex(new Uint8Array(randomBytes(4)));

/**
 * Makes the machines of a cluster. The state is written before the first machine is, so that nothing is ever made
 * that `terminate` does not know of. A failure removes what was made.
 *
 * @param options.uid of a caller that notes it beforehand
 * @throws WorkspaceError (ERR_CLUSTER_EXISTS) where the workspace has a cluster already
 * @throws AsterismError (ERR_LOCKED) another process is at work in the workspace
 */
export async function createCluster(
  workspace: Workspace,
  config: ClusterConfig,
  machines: Machines,
  options: CreateOptions,
): Promise<ClusterState> {
  return workspace.exclusively(() => create(workspace, config, machines, options));
}

type CreateOptions = Options & { readonly uid?: string };

async function create(
  workspace: Workspace,
  config: ClusterConfig,
  machines: Machines,
  options: CreateOptions,
): Promise<ClusterState> {
  await refuseExisting(workspace);
  machines.checkPermission();
  const initSecret = toUtf8(toBase64Url(new Uint8Array(randomBytes(30))));
  const state: ClusterState = {
    schema: 1,
    name: config.name,
    uid: options.uid ?? newUid(),
    provider: 'local',
    phase: 'creating',
    kubernetesVersion: config.kubernetesVersion,
    image: config.image,
    endpoint: '',
    nodes: [],
    initSecret: toBase64(initSecret),
  };
  await workspace.writeState(state);
  try {
    const local = config.provider.local;
    const made = await machines.create(
      {
        name: state.name,
        uid: state.uid,
        image: state.image,
        kubernetesVersion: state.kubernetesVersion,
        controlPlaneNodes: local.controlPlaneNodes,
        workerNodes: local.workerNodes,
        stateDiskMiB: local.stateDiskMiB,
        egress: local.egress,
        initSecretHash: await hash(Buffer.from(initSecret).toString(), BCRYPT_COST),
        workspace: workspace.folder,
      },
      options,
    );
    const created: ClusterState = { ...state, ...made, phase: 'created' };
    await workspace.writeState(created);
    return created;
  } catch (error) {
    await undo(workspace, state, machines, options, error);
    throw error;
  }
}

/** Nothing of the cluster holds data yet, so it is removed; what cannot be stays in the state file. */
async function undo(
  workspace: Workspace,
  state: ClusterState,
  machines: Machines,
  options: Options,
  error: unknown,
): Promise<void> {
  try {
    options.onDetail('it failed: removing what was made');
    // The user's Ctrl-C may be the failure: cleaning up goes on without it.
    await machines.destroy(state, { ...options, signal: AbortSignal.timeout(120_000) });
    // Whoever took a lock away to make another cluster here keeps that.
    if ((await workspace.state())?.uid === state.uid) await workspace.remove(STATE_FILE);
  } catch (second) {
    throw new AggregateError(
      [error, second],
      'creating the cluster failed, and so did removing what was made; run: asterism terminate',
    );
  }
}

async function refuseExisting(workspace: Workspace): Promise<void> {
  const state = await workspace.state();
  if (state === undefined) return;
  const next =
    state.phase === 'creating' || state.phase === 'terminating'
      ? 'it is half made: remove it with `asterism terminate`, then create again'
      : 'go on with `asterism init`, remove it with `asterism terminate`, or use another workspace (--workspace)';
  throw new WorkspaceError(
    'ERR_CLUSTER_EXISTS',
    `${workspace.path(STATE_FILE)} says that this workspace has a cluster (${state.name}, ${state.phase}); ${next}`,
  );
}
