import { CONFIG_FILE, clusterName } from '@asterism/config/cluster-config';
import { renderClusterConfig } from '@asterism/config/template';
import { Command, InvalidArgumentError } from 'commander';
import { contextOf } from '../context.ts';
import { integer } from '../options.ts';
import type { LoadParts } from '../parts.ts';

interface GenerateOptions {
  readonly file: string;
  readonly name: string;
  readonly kubernetes: string;
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
      .option('-f, --file <file>', "file to write, within the workspace; '-' is standard output", CONFIG_FILE)
      .option('--name <name>', 'name of the cluster', parseName, 'asterism')
      .option('-k, --kubernetes <version>', 'Kubernetes version of the catalogue', 'v1.37.2')
      .option('-c, --control-plane-nodes <n>', 'control-plane nodes', integer(1, 9), 1)
      .option('-w, --worker-nodes <n>', 'worker nodes', integer(0, 50), 1)
      .action((options: GenerateOptions, command: Command) => generateLocal(options, command, load)),
  );
  return config.addCommand(generate);
}

async function generateLocal(options: GenerateOptions, command: Command, load: LoadParts): Promise<void> {
  const { workspace, out, force } = contextOf(command);
  const image = await (await load()).images.built();
  const text = renderClusterConfig({
    version: 'v1',
    name: options.name,
    kubernetesVersion: options.kubernetes,
    image: image?.reference ?? '',
    provider: {
      local: {
        controlPlaneNodes: options.controlPlaneNodes,
        workerNodes: options.workerNodes,
        stateDiskMiB: 4096,
      },
    },
    attestation: { qemuVtpm: { acceptUnauthenticatedTpm: true, measurements: image?.measurements ?? {} } },
    kms: { type: 'cluster' },
  });
  if (options.file === '-') {
    process.stdout.write(text);
    return;
  }
  await workspace.create(options.file, text, { overwrite: force });
  const path = workspace.path(options.file);
  const next =
    image === undefined
      ? '\nThe node image is not built yet: run `asterism image build`, then `asterism image measurements --write-config`'
      : '';
  out.result({ file: path, image: image?.reference ?? null }, `${path} written${next}`);
}

function parseName(text: string): string {
  const result = clusterName.safeParse(text);
  if (!result.success) throw new InvalidArgumentError(result.error.issues[0]?.message ?? 'not a name');
  return text;
}
