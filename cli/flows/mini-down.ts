import { readdir, rmdir } from 'node:fs/promises';
import { CONFIG_FILE } from '@asterism/config/cluster-config';
import { MASTER_SECRET_FILE } from '@asterism/config/master-secret';
import type { ClusterState } from '@asterism/config/state';
import { type Workspace, WorkspaceError } from '@asterism/config/workspace';
import { ParseError } from '@asterism/errors/errors';
import type { Context } from '../context.ts';
import type { Machines } from '../machines.ts';
import { describeClusters } from './local-clusters.ts';
import { fingerprint, MARKER_FILE, type Marker, readMarker, refuseForeign } from './mini-marker.ts';
import { terminateCluster } from './terminate-cluster.ts';

/**
 * Removes the cluster and the files that `mini up` made; the folder too where nothing else is in it.
 *
 * @returns names of the files that are left, because `mini up` did not make them
 * @throws WorkspaceError ERR_NOT_MINI the cluster is not of `mini up`; ERR_NO_MINI there is none
 * @throws AsterismError (ERR_LOCKED) another process is at work in the workspace
 */
export async function miniDown(context: Context, machines: Machines): Promise<string[]> {
  const { workspace } = context;
  // Looked at beforehand too: where nothing is to be removed, nothing is to be locked, which makes the folder.
  await requireMini(workspace, machines);
  return workspace.exclusively(() => remove(context, machines));
}

async function remove(context: Context, machines: Machines): Promise<string[]> {
  const { workspace, progress, signal } = context;
  const { marker, state } = await requireMini(workspace, machines);
  if (state !== undefined) await terminateCluster(context, machines);
  else {
    // The state file may have been lost, and not its cluster.
    machines.checkPermission();
    const cluster = { name: 'mini', uid: marker.made.cluster };
    await progress.phase('terminate', (onDetail) => machines.destroy(cluster, { signal, onDetail }));
  }
  if (await isOwnSecret(workspace, marker)) await workspace.remove(MASTER_SECRET_FILE);
  if (marker.made.configuration) await workspace.remove(CONFIG_FILE);
  // Last, so that a removal that is interrupted can be gone on with.
  await workspace.remove(MARKER_FILE);
  return removeFolder(workspace.folder);
}

async function requireMini(
  workspace: Workspace,
  machines: Machines,
): Promise<{ marker: Marker; state: ClusterState | undefined }> {
  const marker = await readMarker(workspace);
  const state = await workspace.state();
  refuseForeign(workspace, marker, state);
  if (marker === undefined) throw await nothingHere(workspace, machines);
  return { marker, state };
}

async function nothingHere(workspace: Workspace, machines: Machines): Promise<WorkspaceError> {
  const here = `there is no mini cluster in ${workspace.folder}`;
  const clusters = await machines.list().catch(() => []);
  if (clusters.length === 0) return new WorkspaceError('ERR_NO_MINI', here);
  const list = describeClusters(clusters);
  return new WorkspaceError('ERR_NO_MINI', `${here}. There are on this machine:\n${list}`);
}

async function isOwnSecret(workspace: Workspace, { made }: Marker): Promise<boolean> {
  try {
    const secret = await workspace.masterSecret();
    return secret !== undefined && fingerprint(secret) === made.masterSecret;
  } catch (error) {
    // What cannot be read as a secret was not written by us.
    if (error instanceof ParseError) return false;
    throw error;
  }
}

async function removeFolder(folder: string): Promise<string[]> {
  try {
    await rmdir(folder);
    return [];
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [];
    if (!['ENOTEMPTY', 'EEXIST', 'EBUSY', 'EINVAL'].includes(code)) throw error;
    return readdir(folder);
  }
}
