import { Command } from 'commander';
import { contextOf } from '../context.ts';
import { type ClusterStatus, clusterStatus, type NodeStatus } from '../flows/cluster-status.ts';
import { exitCodeOfAll } from '../flows/verify-node.ts';
import type { LoadParts } from '../parts.ts';

export function statusCommand(load: LoadParts): Command {
  return new Command('status')
    .description('Tell how far the cluster of the workspace is and how each of its nodes fares.')
    .addHelpText(
      'after',
      `
It exits with 2 or 3, as verify does, where a node answers with evidence that is false or not what the configuration
allows. A node that does not run or does not answer is told, and no failure.`,
    )
    .action(async (_options: object, command: Command) => {
      const context = contextOf(command);
      const state = await context.workspace.requireState();
      const { status, verdicts } = await clusterStatus(context, state, await load());
      process.exitCode = exitCodeOfAll(verdicts.filter(({ outcome }) => outcome === 'failed'));
      context.out.result(status, describe(status));
    });
}

function describe(status: ClusterStatus): string {
  const width = Math.max(4, ...status.nodes.map((node) => node.name.length));
  const failed = status.nodes.filter((node) => node.attestation === 'failed');
  const unmapped = status.nodes.filter((node) => node.stateDiskMapped === false).length;
  return [
    `cluster ${status.name} (${status.uid}): ${status.phase}, Kubernetes ${status.kubernetesVersion}`,
    `cluster id: ${status.clusterId ?? 'not known yet'}`,
    `endpoint: ${status.endpoint}, API server: ${status.kubernetes}`,
    ...status.nodes.map((node) => row(node, width)),
    ...failed.map(
      (node) => `${node.name} FAILED attestation: ${node.attestationError}; see: asterism verify`,
    ),
    ...(status.machines === 'gone'
      ? [
          'Nothing is known of its machines here: they were removed by other means, or are on another machine. ' +
            'Remove what is left of the cluster with: asterism terminate',
        ]
      : []),
    ...(unmapped === 0
      ? []
      : [
          `The state disks of ${unmapped} nodes are formatted, keyed and unlocked for real but not mapped: this ` +
            'kernel has no device-mapper. What Kubernetes writes there lies in a plain folder of this machine.',
        ]),
    ...(status.trust === null ? [] : [status.trust]),
  ].join('\n');
}

function row(node: NodeStatus, width: number): string {
  return [
    `  ${node.name.padEnd(width)}`,
    node.role.padEnd(12),
    node.address.padEnd(13),
    word(node.running, 'running', 'stopped').padEnd(8),
    word(node.ready, 'Ready', 'not Ready').padEnd(10),
    (node.kubeletVersion ?? '-').padEnd(9),
    `attestation ${node.attestation}`,
  ].join(' ');
}

const word = (value: boolean | null, yes: string, no: string): string =>
  value === null ? 'unknown' : value ? yes : no;
