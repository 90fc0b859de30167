import { STATE_FILE } from '@asterism/config/state';
import { KUBECONFIG_FILE, type Workspace } from '@asterism/config/workspace';
import type { Machines, Options } from '../machines.ts';

/**
 * Removes a cluster with everything on its disks, its kubeconfig and its state file. The configuration and the
 * master secret stay: the secret may be needed to read a copy of a disk.
 */
export async function terminateCluster(
  workspace: Workspace,
  machines: Machines,
  options: Options,
): Promise<void> {
  const state = await workspace.requireState();
  await workspace.writeState({ ...state, phase: 'terminating' });
  await machines.destroy(state, options);
  await workspace.remove(KUBECONFIG_FILE);
  await workspace.remove(STATE_FILE);
}
