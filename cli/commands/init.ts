import { KUBECONFIG_FILE } from '@asterism/config/workspace';
import { Command } from 'commander';
import { contextOf } from '../context.ts';
import { runInit } from '../flows/run-init.ts';
import type { LoadParts } from '../parts.ts';

export function initCommand(load: LoadParts): Command {
  return new Command('init')
    .description('Verify the first node and make it a cluster; the other nodes join by themselves.')
    .option('--master-secret <file>', 'use this master secret instead of generating one')
    .addHelpText(
      'after',
      `
It may be stopped or fail at any point: run it again and it goes on where it was.`,
    )
    .action(async (options: { masterSecret?: string }, command: Command) => {
      const context = contextOf(command);
      const parts = await load();
      const state = await runInit(context, parts, options.masterSecret);
      const trust = parts.trustStatement(await context.workspace.config());
      const path = context.workspace.path(KUBECONFIG_FILE);
      context.out.result(
        { clusterId: state.clusterId, kubeconfig: path, trust },
        `cluster ${state.clusterId} is initialised; kubeconfig: ${path}\n${trust}\n` +
          'See the other nodes join with: asterism status',
      );
    });
}
