import { spawn } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import { imageFolder } from '@asterism/image/build';
import { withLock } from '@asterism/kubernetes/components/cache';
import { componentsFolder, readManifest } from '@asterism/kubernetes/components/provide';
import { processesIn, removeGroups } from './cgroups.ts';
import {
  CLUSTERS,
  clusterFolder,
  findCluster,
  type LocalCluster,
  type LocalNode,
  listClusters,
  nodeOf,
  readCluster,
  runtimeFolder,
  writeCluster,
} from './cluster.ts';
import { checkHost, host } from './host.ts';
import { raiseHostLimits, restoreHostLimits } from './host-limits.ts';
import { createFabric, removeNetworks } from './network.ts';
import { killNode, runningInit, startNode, stopNode } from './node.ts';
import { startSupervisor, stopSupervisor } from './supervisor.ts';
import { powerOff } from './tpm.ts';

export interface LocalClusterSpec {
  readonly name: string;
  readonly uid: string;
  /** Reference of a node image in the cache. */
  readonly image: string;
  readonly kubernetesVersion: string;
  readonly controlPlaneNodes: number;
  readonly workerNodes: number;
  readonly stateDiskMiB: number;
  /** bcrypt hash of the init secret. */
  readonly initSecretHash: string;
}

export interface ProviderOptions {
  readonly signal: AbortSignal;
  readonly onDetail: (text: string) => void;
}

const FIRST_NODE = 11;

/**
 * Makes the machines of a cluster and boots them.
 * @throws AsterismError ERR_HOST, ERR_NOT_BUILT, ERR_CLUSTER_EXISTS
 */
export async function createLocalCluster(
  spec: LocalClusterSpec,
  options: ProviderOptions,
): Promise<LocalCluster> {
  await checkHost();
  const image = await imageFolder(spec.image);
  if (image === undefined)
    throw new AsterismError(
      'ERR_NOT_BUILT',
      `image ${spec.image} is not in the cache; run: asterism image build`,
    );
  if ((await readManifest(spec.kubernetesVersion)) === undefined) {
    throw new AsterismError(
      'ERR_NOT_BUILT',
      `the components of ${spec.kubernetesVersion} are not in the cache; run: asterism components build ${spec.kubernetesVersion}`,
    );
  }
  const names = [
    ...Array.from({ length: spec.controlPlaneNodes }, (_, i) => ({
      name: `control-plane-${i}`,
      role: 'ControlPlane' as const,
    })),
    ...Array.from({ length: spec.workerNodes }, (_, i) => ({ name: `worker-${i}`, role: 'Worker' as const })),
  ];
  const cluster = await register(spec, image, names);
  // After the cluster is on record: one that is removed just now does not put the limits back.
  await raiseHostLimits();
  options.onDetail('network');
  await createFabric(cluster);
  await startSupervisor(cluster);
  for (const node of cluster.nodes) {
    options.signal.throwIfAborted();
    options.onDetail(`booting ${node.name}`);
    await startNode(cluster, node);
  }
  return cluster;
}

/** Takes a network of its own and writes the cluster down before anything of it is made. */
async function register(
  spec: LocalClusterSpec,
  image: string,
  names: readonly Pick<LocalNode, 'name' | 'role'>[],
): Promise<LocalCluster> {
  await mkdir(CLUSTERS, { recursive: true, mode: 0o700 });
  return withLock(CLUSTERS, async () => {
    if ((await findCluster(spec.uid)) !== undefined)
      throw new AsterismError('ERR_CLUSTER_EXISTS', `cluster ${spec.uid} exists already`);
    const taken = new Set((await listClusters()).map((cluster) => cluster.subnet));
    const routes = await host('ip', '-4', 'route');
    let subnet = 1;
    while (taken.has(subnet) || routes.includes(`10.77.${subnet}.`)) subnet++;
    if (subnet > 254)
      throw new AsterismError(
        'ERR_NO_NETWORK',
        'all networks 10.77.0.0/16 are taken; remove clusters with: asterism terminate',
      );
    const cluster: LocalCluster = {
      name: spec.name,
      uid: spec.uid,
      subnet,
      imageFolder: image,
      componentsFolder: componentsFolder(spec.kubernetesVersion),
      initSecretHash: spec.initSecretHash,
      stateDiskMiB: spec.stateDiskMiB,
      nodes: names.map((node, i) => ({ ...node, address: `10.77.${subnet}.${FIRST_NODE + i}` })),
    };
    await writeCluster(cluster);
    return cluster;
  });
}

/** Removes everything of a cluster; also of one that was made by half, and again. */
export async function removeLocalCluster(uid: string, options: ProviderOptions): Promise<void> {
  const cluster = await findCluster(uid).catch(() => undefined);
  for (const node of cluster?.nodes ?? []) {
    options.onDetail(`stopping ${node.name}`);
    await killNode(cluster!, node);
    await powerOff(uid, node.name);
  }
  await stopSupervisor(uid);
  for (const pid of await processesIn(uid)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended by itself.
    }
  }
  await removeNetworks(uid);
  await removeGroups(uid);
  await rm(runtimeFolder(uid), { recursive: true, force: true });
  await rm(clusterFolder(uid), { recursive: true, force: true });
  await restoreHostLimits();
}

/** Starts a node, and the supervisor where it is gone. */
export async function startLocalNode(uid: string, name: string): Promise<void> {
  const cluster = await readCluster(uid);
  await startSupervisor(cluster);
  await startNode(cluster, nodeOf(cluster, name));
}

/** Shuts a node down cleanly, or with `kill` as by a power cut. */
export async function stopLocalNode(uid: string, name: string, kill = false): Promise<void> {
  const cluster = await readCluster(uid);
  await (kill ? killNode : stopNode)(cluster, nodeOf(cluster, name));
}

export interface LocalNodeStatus extends LocalNode {
  readonly running: boolean;
  /** Always false: a system container has no device-mapper of its own. The disk is LUKS2, but not mapped. */
  readonly stateDiskMapped: boolean;
}

export async function statusOfLocalCluster(uid: string): Promise<LocalNodeStatus[]> {
  const cluster = await readCluster(uid);
  return Promise.all(
    cluster.nodes.map(async (node) => ({
      ...node,
      running: (await runningInit(uid, node.name)) !== undefined,
      stateDiskMapped: false,
    })),
  );
}

/** Runs a program inside a node. @returns its exit code */
export async function execInNode(
  uid: string,
  name: string,
  argv: readonly string[],
  options: {
    readonly signal: AbortSignal;
    readonly stdio?: 'inherit' | 'pipe';
    readonly onOutput?: (chunk: Buffer) => void;
  },
): Promise<number> {
  const cluster = await readCluster(uid);
  const node = nodeOf(cluster, name);
  const init = await runningInit(uid, node.name);
  if (init === undefined)
    throw new AsterismError(
      'ERR_NODE_STOPPED',
      `${name} does not run; start it with: asterism local start ${name}`,
    );
  const environment = [
    'env',
    '-i',
    'PATH=/run/state/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'KUBECONFIG=/etc/kubernetes/admin.conf',
    `TERM=${process.env.TERM ?? 'dumb'}`,
    'HOME=/root',
  ];
  const child = spawn(
    'nsenter',
    ['-t', String(init.pid), '-m', '-u', '-i', '-n', '-p', '-C', '-r', '-w', ...environment, ...argv],
    {
      stdio: options.stdio === 'pipe' ? ['ignore', 'pipe', 'pipe'] : 'inherit',
      signal: options.signal,
    },
  );
  if (options.onOutput !== undefined) {
    child.stdout?.on('data', options.onOutput);
    child.stderr?.on('data', options.onOutput);
  }
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, name_) => resolve(code ?? (name_ === 'SIGINT' ? 130 : 1)));
  });
}

export const nodeLogPath = (uid: string, name: string): string =>
  join(clusterFolder(uid), 'nodes', name, 'node.log');
