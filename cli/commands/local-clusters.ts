import { Workspace } from '@asterism/config/workspace';
import { AsterismError } from '@asterism/errors/errors';
import { Command } from 'commander';
import { confirm } from '../confirm.ts';
import { contextOf } from '../context.ts';
import { describeClusters } from '../flows/local-clusters.ts';
import type { FoundCluster, Machines } from '../machines.ts';
import type { LoadParts } from '../parts.ts';

/** What can be done to the clusters of this machine without their workspaces. */
export function localClusterCommands(load: LoadParts): Command[] {
  const list = new Command('list')
    .description('List every cluster of this machine, whatever workspace it belongs to.')
    .action(async (_options: object, command: Command) => {
      const { out } = contextOf(command);
      const clusters = await (await load()).machines.list();
      const text = clusters.length === 0 ? 'there is no cluster on this machine' : describeClusters(clusters);
      out.result({ clusters: clusters.map(explicit) }, text);
    });
  const remove = new Command('remove')
    .description('Remove a cluster whose workspace is lost: its machines with everything on their disks.')
    .argument('<uid>', 'uid of the cluster, see: asterism local list')
    .option('-y, --yes', 'do not ask', false)
    .addHelpText(
      'after',
      `
Where its workspace is there, \`asterism terminate\` (or \`asterism mini down\`) removes the files there too.`,
    )
    .action((uid: string, options: { yes: boolean }, command: Command) =>
      removeCluster(uid, options.yes, command, load),
    );
  return [list, remove];
}

/** JSON leaves out what is undefined. */
const explicit = ({ uid, name, nodes, workspace }: FoundCluster) => ({
  uid,
  name: name ?? null,
  nodes,
  workspace: workspace ?? null,
});

async function removeCluster(uid: string, yes: boolean, command: Command, load: LoadParts): Promise<void> {
  const { out, progress, signal } = contextOf(command);
  const { machines } = await load();
  machines.checkPermission();
  const found = await findCluster(uid, machines);
  const name = found.name ?? 'whose record is damaged';
  const from = found.workspace === undefined ? '' : `, made from ${found.workspace}`;
  const question = `Remove the cluster ${name} (${uid}, ${found.nodes.total} nodes${from}) and everything on its disks?`;
  if (!yes && !(await confirm(question, signal))) {
    out.note('aborted; nothing was changed');
    return;
  }
  await progress.phase('remove', (onDetail) => machines.destroy({ uid, name }, { signal, onDetail }));
  if (found.workspace !== undefined && (await describes(found.workspace, uid))) {
    const next = `asterism --workspace ${found.workspace} terminate`;
    out.note(`its files are still in ${found.workspace}; remove them with: ${next}`);
  }
  out.result({ removed: uid }, `cluster ${uid} is removed`);
}

async function findCluster(uid: string, machines: Machines): Promise<FoundCluster> {
  const clusters = await machines.list();
  const found = clusters.find((cluster) => cluster.uid === uid);
  if (found !== undefined) return found;
  const known = clusters.length === 0 ? '' : `; there are: ${clusters.map((one) => one.uid).join(', ')}`;
  throw new AsterismError('ERR_NO_CLUSTER', `there is no cluster ${uid} on this machine${known}`);
}

/** Whether the state file of a folder is still of this cluster. */
async function describes(folder: string, uid: string): Promise<boolean> {
  const state = await new Workspace(folder).state().catch(() => undefined);
  return state?.uid === uid;
}
