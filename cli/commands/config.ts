import { CONFIG_FILE, clusterName } from '@asterism/config/cluster-config';
import { renderClusterConfig } from '@asterism/config/template';
import { Command, InvalidArgumentError } from 'commander';
import { contextOf } from '../context.ts';
import { chooseVersion, VERSION_HELP } from '../flows/kubernetes-version.ts';
import { integer } from '../options.ts';
import type { LoadParts } from '../parts.ts';

interface GenerateOptions {
  readonly file?: '-';
  readonly name: string;
  readonly kubernetes?: string;
  readonly controlPlaneNodes: number;
  readonly workerNodes: number;
}

export function configCommand(load: LoadParts): Command {
  const config = new Command('config').description('Make the configuration file of a cluster.');
  const generate = new Command('generate').description(
    'Write a commented configuration. It never overwrites a file, unless --force is given.',
  );
  generate.addCommand(
    new Command('local')
      .description('Configuration for a cluster of system containers on this machine.')
      .option(
        '-f, --file <file>',
        `'-' prints the configuration instead of writing it to ${CONFIG_FILE} of the workspace`,
        parseFile,
      )
      .option('--name <name>', 'name of the cluster', parseName, 'asterism')
      .option('-k, --kubernetes <version>', `${VERSION_HELP} (default: the newest)`)
      .option('-c, --control-plane-nodes <n>', 'control-plane nodes', integer(1, 9), 1)
      .option('-w, --worker-nodes <n>', 'worker nodes', integer(0, 50), 1)
      .action((options: GenerateOptions, command: Command) => generateLocal(options, command, load)),
  );
  return config.addCommand(generate);
}

async function generateLocal(options: GenerateOptions, command: Command, load: LoadParts): Promise<void> {
  const { workspace, out, force } = contextOf(command);
  if (options.file === '-' && out.format === 'json') {
    command.error('error: -f - prints the configuration itself, which is YAML: leave out -o json');
  }
  const parts = await load();
  const { version } = await chooseVersion(parts.components, options.kubernetes);
  const image = await parts.images.built();
  const text = renderClusterConfig({
    version: 'v1',
    name: options.name,
    kubernetesVersion: version,
    image: image?.reference ?? '',
    provider: {
      local: {
        controlPlaneNodes: options.controlPlaneNodes,
        workerNodes: options.workerNodes,
        stateDiskMiB: 4096,
        egress: false,
      },
    },
    attestation: { qemuVtpm: { acceptUnauthenticatedTpm: true, measurements: image?.measurements ?? {} } },
    kms: { type: 'cluster' },
  });
  if (options.file === '-') {
    process.stdout.write(text);
    return;
  }
  await workspace.create(CONFIG_FILE, text, { overwrite: force });
  const path = workspace.path(CONFIG_FILE);
  const where = workspace.folder === process.cwd() ? '' : `--workspace ${workspace.folder} `;
  const next =
    image === undefined
      ? '\nThe node image is not built yet: run `asterism image build`, then ' +
        `\`asterism ${where}image measurements --write-config\``
      : '';
  out.result({ file: path, image: image?.reference ?? null }, `${path} written${next}`);
}

function parseFile(text: string): '-' {
  if (text === '-') return text;
  throw new InvalidArgumentError(
    `only '-' (standard output) can be given: every command reads ${CONFIG_FILE} of the workspace (--workspace).`,
  );
}

function parseName(text: string): string {
  const result = clusterName.safeParse(text);
  if (!result.success) throw new InvalidArgumentError(result.error.issues[0]?.message ?? 'not a name');
  return text;
}
