import { relative, resolve } from 'node:path';
import { KUBECONFIG_FILE, Workspace } from '@asterism/config/workspace';
import { Command } from 'commander';
import { type Context, contextOf } from '../context.ts';
import { VERSION_HELP } from '../flows/kubernetes-version.ts';
import { type MiniResult, miniUp } from '../flows/mini.ts';
import { miniDown } from '../flows/mini-down.ts';
import { MARKER_FILE } from '../flows/mini-marker.ts';
import { checkRequirements, type Needs } from '../flows/requirements.ts';
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
      .option('-k, --kubernetes <version>', `${VERSION_HELP} (default: the newest)`)
      .addHelpText(
        'after',
        `
Run again it goes on where it was stopped, and says so where the cluster is there already. With --force it starts
although the machine looks too small. What it made, and how long each phase took, is noted in ${MARKER_FILE} of the
workspace.`,
      )
      .action(async (options: UpOptions, command: Command) => {
        const context = miniContext(command);
        const result = await miniUp(context, await load(), {
          controlPlaneNodes: options.controlPlaneNodes,
          workerNodes: options.workerNodes,
          kubernetesVersion: options.kubernetes,
          checkMachine: (needs) => checkMachine(context, needs),
        });
        process.exitCode = exitCodeOfAll(result.verdicts);
        report(context, result);
      }),
  );
  mini.addCommand(
    new Command('down')
      .description('Remove the cluster and everything that `mini up` made in the workspace.')
      .addHelpText(
        'after',
        `
Files that \`mini up\` did not make stay, a configuration that was there before it too. A cluster that it did not make
is left alone: remove that with \`asterism terminate\`.`,
      )
      .action(async (_options: object, command: Command) => {
        const context = miniContext(command);
        const { folder } = context.workspace;
        const kept = await miniDown(context, (await load()).machines);
        const left =
          kept.length === 0 ? 'nothing is left of it' : `it is removed; ${folder} keeps ${kept.join(', ')}`;
        context.out.result({ removed: folder, kept }, left);
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

async function checkMachine({ force, out }: Context, needs: Needs): Promise<void> {
  try {
    for (const remark of await checkRequirements(needs)) out.warn(remark);
  } catch (error) {
    if (!force) throw error;
    out.warn((error as Error).message);
  }
}

function report(
  { out, workspace, progress }: Context,
  { state, kubectl, verdicts, trust, already }: MiniResult,
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
      trust,
      phases: progress.times,
      commands,
    },
    [
      already ? `The cluster ${state.name} is already there.` : `The cluster ${state.name} is made.`,
      failed.length === 0
        ? `Its ${verdicts.length} nodes are Ready, and each has proved what it booted.`
        : failed.map((verdict) => `${verdict.node} FAILED verification: ${verdict.error}`).join('\n'),
      trust,
      '',
      'Try next:',
      ...commands.map((line) => `  ${line}`),
    ].join('\n'),
  );
}
