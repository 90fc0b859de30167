import { relative, resolve } from 'node:path';
import { KUBECONFIG_FILE, Workspace } from '@asterism/config/workspace';
import { Command } from 'commander';
import { type Context, contextOf } from '../context.ts';
import { type MiniOptions, type MiniResult, miniDown, miniUp, PHASES_FILE } from '../flows/mini.ts';
import { checkRequirements } from '../flows/requirements.ts';
import { exitCodeOfAll } from '../flows/verify-node.ts';
import { integer } from '../options.ts';
import type { LoadParts } from '../parts.ts';
import { ROOT } from '../version.ts';

const DEFAULT_WORKSPACE = 'mini';

interface UpOptions {
  readonly controlPlaneNodes?: number;
  readonly workerNodes?: number;
  readonly kubernetes?: string;
}

export function miniCommand(load: LoadParts): Command {
  const mini = new Command('mini').description(
    `A whole attested cluster on this machine with one command, in the workspace ./${DEFAULT_WORKSPACE}.`,
  );
  mini.addCommand(
    new Command('up')
      .description('Build what is needed, make a cluster, wait until every node is Ready, verify it.')
      .option(
        '-c, --control-plane-nodes <n>',
        'control-plane nodes of a new cluster (default: 1)',
        integer(1, 9),
      )
      .option('-w, --worker-nodes <n>', 'worker nodes of a new cluster (default: 1)', integer(0, 50))
      .option('-k, --kubernetes <version>', 'Kubernetes version of a new cluster (default: the newest)')
      .addHelpText(
        'after',
        `
Run again it goes on where it was stopped, and says so where the cluster is there already. With --force it starts
although the machine looks too small. The times of its phases are kept in ${PHASES_FILE} of the workspace.`,
      )
      .action(async (options: UpOptions, command: Command) => {
        const context = miniContext(command);
        const wanted: MiniOptions = {
          controlPlaneNodes: options.controlPlaneNodes,
          workerNodes: options.workerNodes,
          kubernetesVersion: options.kubernetes,
        };
        await checkMachine(context, wanted);
        const result = await miniUp(context, await load(), wanted);
        process.exitCode = exitCodeOfAll(result.verdicts);
        report(context, result);
      }),
  );
  mini.addCommand(
    new Command('down')
      .description('Remove the cluster and everything that `mini up` made in the workspace.')
      .action(async (_options: object, command: Command) => {
        const context = miniContext(command);
        await miniDown(context, await load());
        context.out.result({ removed: context.workspace.folder }, 'nothing is left of it');
      }),
  );
  return mini;
}

/** The context of a mini command: its workspace is ./mini where none is given. */
function miniContext(command: Command): Context {
  const context = contextOf(command);
  const given = command.getOptionValueSourceWithGlobals('workspace') !== 'default';
  return given ? context : { ...context, workspace: new Workspace(resolve(DEFAULT_WORKSPACE)) };
}

async function checkMachine({ force, out }: Context, wanted: MiniOptions): Promise<void> {
  try {
    const nodes = (wanted.controlPlaneNodes ?? 1) + (wanted.workerNodes ?? 1);
    for (const remark of await checkRequirements({ nodes, folder: '/var/lib/asterism' })) out.warn(remark);
  } catch (error) {
    if (!force) throw error;
    out.warn((error as Error).message);
  }
}

function report(
  { out, workspace, progress }: Context,
  { state, kubectl, verdicts, already }: MiniResult,
): void {
  const here = relative(process.cwd(), ROOT);
  const asterism = here === '' ? './asterism' : `${ROOT}/asterism`;
  const kubeconfig = workspace.path(KUBECONFIG_FILE);
  const commands = [
    `${kubectl} --kubeconfig ${kubeconfig} get nodes`,
    `${asterism} --workspace ${workspace.folder} verify`,
    `${asterism} --workspace ${workspace.folder} mini down`,
  ];
  const failed = verdicts.filter((verdict) => verdict.outcome !== 'passed');
  out.result(
    {
      already,
      clusterId: state.clusterId,
      kubeconfig,
      kubectl,
      nodes: verdicts,
      phases: progress.times,
      commands,
    },
    [
      already ? `The cluster ${state.name} is already there.` : `The cluster ${state.name} is made.`,
      failed.length === 0
        ? `Its ${verdicts.length} nodes are Ready, and each has proved what it booted.`
        : failed.map((verdict) => `${verdict.node} FAILED verification: ${verdict.error}`).join('\n'),
      '',
      'Try next:',
      ...commands.map((line) => `  ${line}`),
    ].join('\n'),
  );
}
