import { existsSync } from 'node:fs';
import { mkdir, rm, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import { imageFolder } from '@asterism/image/build';
import { locked } from '@asterism/runtime/folder-lock';
import { processesIn, removeGroups } from './cgroups.ts';
import {
  CLUSTERS,
  checkUid,
  clusterFolder,
  findCluster,
  LOCK_SECONDS,
  type LocalCluster,
  type LocalNode,
  listClusters,
  listUids,
  nodeOf,
  REGISTRY_LOCK,
  RUNTIME,
  readCluster,
  runtimeFolder,
  writeCluster,
} from './cluster.ts';
import { builtComponents, keepComponents } from './components.ts';
import { canMapStateDisks, checkHost, host } from './host.ts';
import { raiseHostLimits, restoreForwarding, restoreHostLimits } from './host-limits.ts';
import { ensureFabric, removeNetworks } from './network.ts';
import { removeNetworkFolder } from './network-folder.ts';
import { killNode, runningInit, startNode, stopNode } from './node.ts';
import { killAll } from './process.ts';
import { releaseStateDisks } from './state-disks.ts';
import { startSupervisor, stopSupervisor } from './supervisor.ts';

export interface LocalClusterSpec {
  readonly name: string;
  readonly uid: string;
  /** Reference of a node image in the cache. */
  readonly image: string;
  readonly kubernetesVersion: string;
  readonly controlPlaneNodes: number;
  readonly workerNodes: number;
  readonly stateDiskMiB: number;
  /** Whether nodes may open connections to the host and beyond it. */
  readonly egress: boolean;
  /** bcrypt hash of the init secret. */
  readonly initSecretHash: string;
}

export interface ProviderOptions {
  readonly signal: AbortSignal;
  readonly onDetail: (text: string) => void;
}

/** Last bytes of the nodes' addresses. */
const FIRST_NODE = 11;
const LAST_NODE = 250;

/**
 * Makes the machines of a cluster and boots them.
 * @throws AsterismError ERR_HOST, ERR_NOT_BUILT, ERR_CLUSTER_EXISTS
 * @throws VerificationError ERR_COMPONENT_HASH
 */
export async function createLocalCluster(
  spec: LocalClusterSpec,
  options: ProviderOptions,
): Promise<LocalCluster> {
  const machines = machinesOf(spec);
  await checkHost(
    machines.map(({ role }) => role),
    spec.stateDiskMiB,
  );
  const image = await imageFolder(spec.image);
  if (image === undefined)
    throw new AsterismError(
      'ERR_NOT_BUILT',
      `image ${spec.image} is not in the cache; run: asterism image build`,
    );
  const components = await builtComponents(spec.kubernetesVersion);
  const cluster = await register(spec, image, machines);
  options.onDetail('network');
  await underLock(cluster.uid, startSupervisor);
  options.onDetail('components');
  await underLock(cluster.uid, ({ uid }) => keepComponents(uid, components));
  for (const { name } of cluster.nodes) {
    options.signal.throwIfAborted();
    options.onDetail(`booting ${name}`);
    await underLock(cluster.uid, (now) => startNode(now, nodeOf(now, name)));
  }
  return cluster;
}

function machinesOf(spec: LocalClusterSpec): Pick<LocalNode, 'name' | 'role'>[] {
  return [
    ...Array.from({ length: spec.controlPlaneNodes }, (_, i) => ({
      name: `control-plane-${i}`,
      role: 'ControlPlane' as const,
    })),
    ...Array.from({ length: spec.workerNodes }, (_, i) => ({ name: `worker-${i}`, role: 'Worker' as const })),
  ];
}

/** Does something to a cluster while nobody else does; with what is known of it then. */
async function underLock<T>(uid: string, use: (cluster: LocalCluster) => Promise<T>): Promise<T> {
  checkUid(uid);
  await readCluster(uid);
  return locked(clusterFolder(uid), LOCK_SECONDS, async () => {
    const cluster = await readCluster(uid);
    await ensureFabric(cluster);
    return use(cluster);
  });
}

/** Takes a network of its own and writes the cluster down before anything of it is made. */
async function register(
  spec: LocalClusterSpec,
  image: string,
  names: readonly Pick<LocalNode, 'name' | 'role'>[],
): Promise<LocalCluster> {
  checkUid(spec.uid);
  return locked(REGISTRY_LOCK, LOCK_SECONDS, async () => {
    await mkdir(CLUSTERS, { recursive: true, mode: 0o700 });
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
      initSecretHash: spec.initSecretHash,
      stateDiskMiB: spec.stateDiskMiB,
      stateDisksMapped: await canMapStateDisks(),
      egress: spec.egress,
      nodes: names.map((node, i) => ({ ...node, address: `10.77.${subnet}.${FIRST_NODE + i}` })),
    };
    await writeCluster(cluster);
    await raiseHostLimits();
    return cluster;
  });
}

/**
 * Removes everything of a cluster; also of one that was made by half, whose record cannot be read, and again.
 * @throws AsterismError ERR_LEFT_BEHIND something of it does not go away
 */
export async function removeLocalCluster(uid: string, options: ProviderOptions): Promise<void> {
  checkUid(uid);
  const folder = clusterFolder(uid);
  const lock = existsSync(folder) ? folder : REGISTRY_LOCK;
  await locked(lock, LOCK_SECONDS, async () => {
    const cluster = await findCluster(uid).catch(() => undefined);
    // It would boot nodes again.
    await stopSupervisor(uid);
    for (const node of cluster?.nodes ?? []) {
      options.onDetail(`stopping ${node.name}`);
      await killNode(cluster!, node);
    }
    await killAll(await processesIn(uid));
    const left = await processesIn(uid);
    if (left.length > 0)
      throw new AsterismError(
        'ERR_LEFT_BEHIND',
        `processes of cluster ${uid} do not end: ${left.join(', ')}; what they wait for must end first, then try again`,
      );
    await releaseStateDisks(uid);
    await removeNetworks(uid);
    await removeGroups(uid);
    await rm(runtimeFolder(uid), { recursive: true, force: true });
    await rm(folder, { recursive: true, force: true });
  });
  await locked(REGISTRY_LOCK, LOCK_SECONDS, async () => {
    const left = await listUids();
    const records = await listClusters();
    // One whose record is damaged is a cluster too, and may have egress.
    if (left.length === records.length && !records.some(({ egress }) => egress)) await restoreForwarding();
    if (left.length === 0) {
      await restoreHostLimits();
      await removeNetworkFolder();
    }
    // Only empty ones go.
    for (const path of [CLUSTERS, dirname(CLUSTERS), RUNTIME]) await rmdir(path).catch(() => {});
  });
}

/** Starts a node, and the network and the supervisor where they are gone, as after a reboot of the host. */
export async function startLocalNode(uid: string, name: string): Promise<void> {
  await underLock(uid, async (cluster) => {
    const node = nodeOf(cluster, name);
    await raiseHostLimits();
    await startSupervisor(cluster);
    await startNode(cluster, node);
  });
}

/** Shuts a node down cleanly, or with `kill` as by a power cut. */
export async function stopLocalNode(uid: string, name: string, kill = false): Promise<void> {
  await underLock(uid, (cluster) => (kill ? killNode : stopNode)(cluster, nodeOf(cluster, name)));
}

/**
 * Adds a machine to a cluster and boots it; it joins by itself.
 * @returns the new node
 * @throws AsterismError ERR_NO_NETWORK no address is left
 */
export async function addLocalNode(uid: string, role: LocalNode['role']): Promise<LocalNode> {
  const node = await underLock(uid, async (cluster) => {
    const prefix = role === 'ControlPlane' ? 'control-plane-' : 'worker-';
    const numbers = cluster.nodes.filter(({ name }) => name.startsWith(prefix));
    const last = Math.max(FIRST_NODE - 1, ...cluster.nodes.map(({ address }) => lastByteOf(address)));
    if (last >= LAST_NODE)
      throw new AsterismError('ERR_NO_NETWORK', `cluster ${cluster.name} has no address left for a node`);
    const next = 1 + Math.max(-1, ...numbers.map(({ name }) => Number(name.slice(prefix.length))));
    const added = { name: `${prefix}${next}`, role, address: `10.77.${cluster.subnet}.${last + 1}` };
    await checkHost([role], cluster.stateDiskMiB);
    await writeCluster({ ...cluster, nodes: [...cluster.nodes, added] });
    return added;
  });
  // The supervisor reads the record every second. A node is told who it is when it first asks.
  await startLocalNode(uid, node.name);
  return node;
}

const lastByteOf = (address: string): number => Number(address.split('.')[3]);

export interface LocalNodeStatus extends LocalNode {
  readonly running: boolean;
  /** False where the kernel had no device-mapper when the cluster was made: the disk is LUKS2, but not mapped. */
  readonly stateDiskMapped: boolean;
}

export async function statusOfLocalCluster(uid: string): Promise<LocalNodeStatus[]> {
  const cluster = await readCluster(uid);
  return Promise.all(
    cluster.nodes.map(async (node) => ({
      ...node,
      running: (await runningInit(uid, node.name)) !== undefined,
      stateDiskMapped: cluster.stateDisksMapped,
    })),
  );
}

export const nodeLogPath = (uid: string, name: string): string =>
  join(clusterFolder(uid), 'nodes', name, 'node.log');
