import { WorkspaceError } from '@asterism/config/workspace';
import { Command } from 'commander';
import { contextOf } from '../context.ts';
import type { LoadParts } from '../parts.ts';
import { localClusterCommands } from './local-clusters.ts';

/** The cluster of the workspace, the node that is meant, and what acts on it. */
async function nodeOf(name: string, command: Command, load: LoadParts) {
  const context = contextOf(command);
  const state = await context.workspace.requireState();
  if (!state.nodes.some((node) => node.name === name)) {
    const known = state.nodes.map((node) => node.name).join(', ');
    throw new WorkspaceError('ERR_NO_NODE', `the cluster has no node ${name}; there are: ${known}`);
  }
  return { context, state, machines: (await load()).machines };
}

export function localCommand(load: LoadParts): Command {
  const local = new Command('local').description('Handle clusters and single nodes on this machine.');
  for (const command of localClusterCommands(load)) local.addCommand(command);
  for (const [verb, description] of [
    ['stop', 'Shut a node down. Its disk and its TPM stay.'],
    ['start', 'Start a node that was stopped.'],
    ['reboot', 'Stop a node and start it again.'],
  ] as const) {
    local.addCommand(
      new Command(verb)
        .description(description)
        .argument('<node>', 'name of the node, see: asterism status')
        .action(async (name: string, _options: object, command: Command) => {
          const { context, state, machines } = await nodeOf(name, command, load);
          const { signal, progress, out } = context;
          await progress.phase(`${verb} ${name}`, async (onDetail) => {
            if (verb !== 'start') await machines.stop(state, name, { signal, onDetail });
            if (verb !== 'stop') await machines.start(state, name, { signal, onDetail });
          });
          out.result(
            { node: name, running: verb !== 'stop' },
            `${name} ${verb === 'stop' ? 'is stopped' : 'runs'}`,
          );
        }),
    );
  }
  local.addCommand(
    new Command('exec')
      .description('Run a program in a node, on this terminal; its exit code is passed on.')
      .argument('<node>', 'name of the node')
      .argument('<program...>', 'the program and its arguments; put -- before it where it has flags')
      .action(async (name: string, program: string[], _options: object, command: Command) => {
        const { context, state, machines } = await nodeOf(name, command, load);
        process.exitCode = await machines.exec(state, name, program, context.signal);
      }),
  );
  local.addCommand(
    new Command('logs')
      .description('Print what a node has logged.')
      .argument('<node>', 'name of the node')
      .option('-f, --follow', 'go on until Ctrl-C', false)
      .action(async (name: string, { follow }: { follow: boolean }, command: Command) => {
        const { context, state, machines } = await nodeOf(name, command, load);
        await machines.logs(state, name, follow, context.signal);
      }),
  );
  return local;
}
