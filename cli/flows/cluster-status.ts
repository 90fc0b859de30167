import type { ClusterState } from '@asterism/config/state';
import { KUBECONFIG_FILE } from '@asterism/config/workspace';
import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import type { Context } from '../context.ts';
import type { ClusterReference, MachineStatus, Machines } from '../machines.ts';
import type { Parts } from '../parts.ts';
import { type KubernetesNode, kubernetesNodes } from './kubernetes-nodes.ts';
import { runVerify } from './run-verify.ts';
import type { NodeVerdict } from './verify-node.ts';

/** What is known of a node; null where nobody could be asked. */
export interface NodeStatus {
  readonly name: string;
  readonly role: string;
  readonly address: string;
  readonly running: boolean | null;
  readonly ready: boolean | null;
  readonly kubeletVersion: string | null;
  /** Outcome of asking the node for evidence just now. */
  readonly attestation: NodeVerdict['outcome'] | 'not asked';
  /** Why it did not pass. */
  readonly attestationError: string | null;
  readonly stateDiskMapped: boolean | null;
}

export interface ClusterStatus
  extends Pick<ClusterState, 'name' | 'uid' | 'phase' | 'kubernetesVersion' | 'endpoint'> {
  readonly clusterId: string | null;
  /** Whether anything is known of the machines. */
  readonly machines: 'known' | 'gone';
  /** Why Kubernetes could not be asked. */
  readonly kubernetes: string;
  readonly nodes: readonly NodeStatus[];
  /** What the evidence is worth; null where none was judged. */
  readonly trust: string | null;
}

/** Asks machines, Kubernetes and every node's VerificationService. */
export async function clusterStatus(
  context: Context,
  state: ClusterState,
  parts: Parts,
): Promise<{ status: ClusterStatus; verdicts: readonly NodeVerdict[] }> {
  const { name, uid, phase, kubernetesVersion, endpoint, clusterId } = state;
  const initialized = phase === 'initialized';
  const [machines, kubernetes, verdicts] = await Promise.all([
    askMachines(parts.machines, state),
    initialized ? askKubernetes(context) : { answer: 'not initialised', nodes: undefined },
    initialized ? runVerify(context, parts, {}) : [],
  ]);
  const nodes = state.nodes.map((node): NodeStatus => {
    const machine = machines?.find((one) => one.name === node.name);
    const seen = kubernetes.nodes?.find((one) => one.name === node.name);
    const verdict = verdicts.find((one) => one.node === node.name);
    return {
      ...node,
      running: machines === undefined ? null : machine?.running === true,
      ready: kubernetes.nodes === undefined ? null : seen?.ready === true,
      kubeletVersion: seen?.kubeletVersion ?? null,
      attestation: verdict?.outcome ?? 'not asked',
      attestationError: verdict?.error ?? null,
      stateDiskMapped: machine?.stateDiskMapped ?? null,
    };
  });
  const status: ClusterStatus = {
    ...{ name, uid, phase, kubernetesVersion, endpoint },
    clusterId: clusterId ?? null,
    machines: machines === undefined ? 'gone' : 'known',
    kubernetes: kubernetes.answer,
    nodes,
    trust: verdicts.length === 0 ? null : parts.trustStatement(await context.workspace.config()),
  };
  return { status, verdicts };
}

/** @returns undefined where nothing is known of them */
async function askMachines(
  machines: Machines,
  cluster: ClusterReference,
): Promise<readonly MachineStatus[] | undefined> {
  try {
    return await machines.status(cluster);
  } catch (error) {
    if (error instanceof AsterismError && error.code === 'ERR_NO_CLUSTER') return undefined;
    throw error;
  }
}

async function askKubernetes({
  workspace,
  signal,
}: Context): Promise<{ answer: string; nodes: KubernetesNode[] | undefined }> {
  const kubeconfig = await workspace.read(KUBECONFIG_FILE);
  if (kubeconfig === undefined) return { answer: `${KUBECONFIG_FILE} is missing`, nodes: undefined };
  try {
    return { answer: 'answers', nodes: await kubernetesNodes(kubeconfig, signal) };
  } catch (error) {
    if (!(error instanceof UnreachableError)) throw error;
    return { answer: 'does not answer', nodes: undefined };
  }
}
