import { Command } from 'commander';
import { confirm } from '../confirm.ts';
import { contextOf } from '../context.ts';
import { terminateCluster } from '../flows/terminate-cluster.ts';
import type { LoadParts } from '../parts.ts';

/** The store that goes with the cluster. */
const IN_CLUSTER = 'storage://kubernetes';

export function terminateCommand(load: LoadParts): Command {
  return new Command('terminate')
    .description('Remove the machines of the cluster with everything on their disks.')
    .option('-y, --yes', 'do not ask', false)
    .addHelpText(
      'after',
      `
The state file and the kubeconfig are removed; the configuration and the master secret stay.`,
    )
    .action(async ({ yes }: { yes: boolean }, command: Command) => {
      const context = contextOf(command);
      const state = await context.workspace.requireState();
      const question = `Remove the cluster ${state.name} (${state.nodes.length} nodes) and everything on its disks?`;
      if (!yes && !(await confirm(question, context.signal))) {
        context.out.note('aborted; nothing was changed');
        return;
      }
      await terminateCluster(context, await load().then((parts) => parts.machines));
      const store = state.keyHome?.storageUri;
      const keysIn = store === undefined || store === IN_CLUSTER ? null : store;
      const said = keysIn === null ? '' : `; its wrapped keys are still in ${keysIn}: remove them there`;
      context.out.result(
        { terminated: `${state.name}-${state.uid}`, wrappedKeysIn: keysIn },
        `cluster ${state.name} is removed${said}`,
      );
    });
}
