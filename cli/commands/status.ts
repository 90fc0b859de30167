import type { ClusterState } from '@asterism/config/state';
import { KUBECONFIG_FILE } from '@asterism/config/workspace';
import { UnreachableError } from '@asterism/errors/errors';
import { Command } from 'commander';
import { type Context, contextOf } from '../context.ts';
import { type KubernetesNode, kubernetesNodes } from '../flows/kubernetes-nodes.ts';
import { runVerify } from '../flows/run-verify.ts';
import type { NodeVerdict } from '../flows/verify-node.ts';
import type { LoadParts, Parts } from '../parts.ts';

export function statusCommand(load: LoadParts): Command {
  return new Command('status')
    .description('Tell how far the cluster of the workspace is and how each of its nodes fares.')
    .action(async (_options: object, command: Command) => {
      const context = contextOf(command);
      const state = await context.workspace.requireState();
      const status = await gather(context, state, await load());
      context.out.result(status, describe(status));
    });
}

interface NodeStatus {
  readonly name: string;
  readonly role: string;
  readonly address: string;
  readonly running: boolean;
  readonly ready: boolean;
  readonly kubeletVersion: string | undefined;
  /** Outcome of asking the node for evidence just now. */
  readonly attestation: NodeVerdict['outcome'] | 'not asked';
  readonly stateDiskMapped: boolean;
}

interface Status extends Pick<ClusterState, 'name' | 'uid' | 'phase' | 'kubernetesVersion' | 'endpoint'> {
  readonly clusterId: string | undefined;
  /** Why Kubernetes could not be asked. */
  readonly kubernetes: string;
  readonly nodes: readonly NodeStatus[];
}

async function gather(context: Context, state: ClusterState, parts: Parts): Promise<Status> {
  const { name, uid, phase, kubernetesVersion, endpoint, clusterId } = state;
  const initialized = phase === 'initialized';
  const [machines, kubernetes, verdicts] = await Promise.all([
    parts.machines.status(state),
    initialized ? askKubernetes(context) : { answer: 'not initialised', nodes: [] },
    initialized ? runVerify(context, parts, {}) : [],
  ]);
  const nodes = state.nodes.map((node): NodeStatus => {
    const machine = machines.find((one) => one.name === node.name);
    const seen = kubernetes.nodes.find((one) => one.name === node.name);
    return {
      ...node,
      running: machine?.running === true,
      ready: seen?.ready === true,
      kubeletVersion: seen?.kubeletVersion,
      attestation: verdicts.find((one) => one.node === node.name)?.outcome ?? 'not asked',
      stateDiskMapped: machine?.stateDiskMapped === true,
    };
  });
  return { name, uid, phase, kubernetesVersion, endpoint, clusterId, kubernetes: kubernetes.answer, nodes };
}

async function askKubernetes({
  workspace,
  signal,
}: Context): Promise<{ answer: string; nodes: KubernetesNode[] }> {
  const kubeconfig = await workspace.read(KUBECONFIG_FILE);
  if (kubeconfig === undefined) return { answer: `${KUBECONFIG_FILE} is missing`, nodes: [] };
  try {
    return { answer: 'answers', nodes: await kubernetesNodes(kubeconfig, signal) };
  } catch (error) {
    if (!(error instanceof UnreachableError)) throw error;
    return { answer: 'does not answer', nodes: [] };
  }
}

function describe(status: Status): string {
  const width = Math.max(4, ...status.nodes.map((node) => node.name.length));
  const rows = status.nodes.map((node) =>
    [
      `  ${node.name.padEnd(width)}`,
      node.role.padEnd(12),
      node.address.padEnd(13),
      (node.running ? 'running' : 'stopped').padEnd(8),
      (node.ready ? 'Ready' : 'not Ready').padEnd(10),
      (node.kubeletVersion ?? '-').padEnd(9),
      `attestation ${node.attestation}`,
    ].join(' '),
  );
  const unmapped = status.nodes.filter((node) => !node.stateDiskMapped).length;
  return [
    `cluster ${status.name} (${status.uid}): ${status.phase}, Kubernetes ${status.kubernetesVersion}`,
    `cluster id: ${status.clusterId ?? 'not known yet'}`,
    `endpoint: ${status.endpoint}, API server: ${status.kubernetes}`,
    ...rows,
    ...(unmapped === 0
      ? []
      : [
          `The state disks of ${unmapped} nodes are formatted, keyed and unlocked for real but not mapped: this ` +
            'kernel has no device-mapper. What Kubernetes writes there lies in a plain folder of this machine.',
        ]),
  ].join('\n');
}
