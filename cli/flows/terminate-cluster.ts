import { STATE_FILE } from '@asterism/config/state';
import { KUBECONFIG_FILE } from '@asterism/config/workspace';
import type { Context } from '../context.ts';
import type { Machines } from '../machines.ts';

/**
 * Removes a cluster with everything on its disks, its kubeconfig and its state file. The configuration and the
 * master secret stay: the secret may be needed to read a copy of a disk.
 * @throws AsterismError (ERR_LOCKED) another process is at work in the workspace
 */
export async function terminateCluster(context: TerminateContext, machines: Machines): Promise<void> {
  await context.workspace.exclusively(() => terminate(context, machines));
}

type TerminateContext = Pick<Context, 'workspace' | 'progress' | 'signal'>;

async function terminate(
  { workspace, progress, signal }: TerminateContext,
  machines: Machines,
): Promise<void> {
  const state = await workspace.requireState();
  machines.checkPermission();
  await workspace.writeState({ ...state, phase: 'terminating' });
  await progress.phase('terminate', (onDetail) => machines.destroy(state, { signal, onDetail }));
  // Where no init was begun, it is a file of something else.
  if (state.clusterId !== undefined) await workspace.remove(KUBECONFIG_FILE);
  await workspace.remove(STATE_FILE);
}
