import { setTimeout as sleep } from 'node:timers/promises';
import { UnreachableError } from '@asterism/errors/errors';
import { type AdminApi, apiOfKubeconfig, listed } from './admin-api.ts';

/** Objects of nodes are large. */
const PAGE = 50;

/** What the API server says of a node. */
export interface KubernetesNode {
  readonly name: string;
  readonly ready: boolean;
  readonly kubeletVersion: string;
  readonly controlPlane: boolean;
}

interface ListedNode {
  readonly metadata?: { readonly name?: string; readonly labels?: Readonly<Record<string, string>> };
  readonly status?: {
    readonly conditions?: readonly { readonly type?: string; readonly status?: string }[];
    readonly nodeInfo?: { readonly kubeletVersion?: string };
  };
}

/**
 * Lists the nodes of a cluster.
 *
 * @param kubeconfig YAML text of the administrator's kubeconfig
 * @throws UnreachableError the API server does not answer; KubernetesApiError it refuses
 */
export async function kubernetesNodes(kubeconfig: string, signal: AbortSignal): Promise<KubernetesNode[]> {
  return nodesOf(await apiOfKubeconfig(kubeconfig), signal);
}

async function nodesOf(api: AdminApi, signal: AbortSignal): Promise<KubernetesNode[]> {
  const nodes: KubernetesNode[] = [];
  for await (const { metadata, status } of listed<ListedNode>(api, '/api/v1/nodes', PAGE, signal)) {
    nodes.push({
      name: metadata?.name ?? '',
      ready: status?.conditions?.some((one) => one.type === 'Ready' && one.status === 'True') === true,
      kubeletVersion: status?.nodeInfo?.kubeletVersion ?? '',
      controlPlane: metadata?.labels?.['node-role.kubernetes.io/control-plane'] !== undefined,
    });
  }
  return nodes;
}

/**
 * Waits until every expected node is there and Ready.
 *
 * @param onState told what is missing, as it changes
 * @throws UnreachableError when time is up
 */
export async function waitForNodes(
  kubeconfig: string,
  names: readonly string[],
  timeoutMs: number,
  signal: AbortSignal,
  onState: (text: string) => void,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  const api = await apiOfKubeconfig(kubeconfig);
  for (;;) {
    let state: string;
    try {
      const nodes = await nodesOf(api, signal);
      const missing = names.filter((name) => !nodes.some((node) => node.name === name));
      const notReady = names.filter((name) => nodes.some((node) => node.name === name && !node.ready));
      if (missing.length === 0 && notReady.length === 0) return;
      state = [
        missing.length > 0 ? `not joined: ${missing.join(', ')}` : '',
        notReady.length > 0 ? `not Ready: ${notReady.join(', ')}` : '',
      ]
        .filter(Boolean)
        .join('; ');
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error;
      state = error.message;
    }
    onState(state);
    if (performance.now() > deadline) {
      throw new UnreachableError(
        `after ${Math.round(timeoutMs / 1000)} s: ${state}. See what a node says with: asterism local logs NODE`,
        { code: 'ERR_NODES_NOT_READY' },
      );
    }
    await sleep(2000, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}
