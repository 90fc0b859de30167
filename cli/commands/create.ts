import type { ClusterConfig } from '@asterism/config/cluster-config';
import { AsterismError, PolicyError } from '@asterism/errors/errors';
import { Command } from 'commander';
import { type Context, contextOf } from '../context.ts';
import { createCluster } from '../flows/create-cluster.ts';
import { chooseVersion } from '../flows/kubernetes-version.ts';
import type { LoadParts, Parts } from '../parts.ts';

export function createCommand(load: LoadParts): Command {
  return new Command('create')
    .description('Start the machines of the cluster that asterism-conf.yaml describes.')
    .addHelpText(
      'after',
      `
With --force it goes on where the configured measurements are not those of the image.`,
    )
    .action(async (_options: object, command: Command) => {
      const context = contextOf(command);
      const parts = await load();
      const { workspace, out, progress, signal } = context;
      const config = await workspace.config();
      await checkBuilt(config, parts, context);
      const state = await progress.phase('machines', (onDetail) =>
        createCluster(workspace, config, parts.machines, { signal, onDetail }),
      );
      out.result(
        { name: state.name, uid: state.uid, endpoint: state.endpoint, nodes: state.nodes },
        `${state.nodes.length} machines run; make them a cluster with: asterism init`,
      );
    });
}

/** Everything that the nodes need is there, and fits the configuration. */
async function checkBuilt(config: ClusterConfig, parts: Parts, { force, out }: Context): Promise<void> {
  const version = await chooseVersion(parts.components, config.kubernetesVersion);
  if (!version.built) {
    throw new AsterismError(
      'ERR_NOT_BUILT',
      `the components of Kubernetes ${version.version} are not there yet; run: asterism components build ${version.version}`,
    );
  }
  const image = await parts.images.built();
  if (image === undefined || image.reference !== config.image) {
    throw new AsterismError(
      'ERR_NOT_BUILT',
      `the configured node image (${config.image}) is not built${image === undefined ? '' : `; there is ${image.reference}`}. ` +
        'Run: asterism image build, then: asterism image measurements --write-config',
    );
  }
  const wrong = Object.entries(config.attestation.qemuVtpm.measurements).filter(
    ([index, { expected, warnOnly }]) => !warnOnly && image.measurements[index]?.expected !== expected,
  );
  if (wrong.length === 0) return;
  const text =
    `the configuration expects other values of PCR ${wrong.map(([index]) => index).join(', ')} than the image ` +
    'will show: init would refuse its nodes. Run: asterism image measurements --write-config';
  if (!force) throw new PolicyError('ERR_MEASUREMENTS', text);
  out.warn(text);
}
