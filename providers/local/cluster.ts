import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import type { Role } from '@asterism/metadata/types';
import { z } from 'zod';

/** Everything that a cluster leaves on a disk is below here. */
export const CLUSTERS = '/var/lib/asterism/local';
/** Locked while clusters come and go. It is there on every machine, before any cluster and after all of them. */
export const REGISTRY_LOCK = '/var/lib';
/** Commands on the same cluster wait so long for each other. */
export const LOCK_SECONDS = 120;
/** Sockets are here: their paths must stay short (108 bytes). */
export const RUNTIME = '/run/asterism';

const uidSchema = z.string().regex(/^[0-9a-f]{8}$/);

const nodeSchema = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9-]{0,40}$/),
  role: z.enum(['ControlPlane', 'Worker']),
  /** IPv4 address in the fabric. */
  address: z.ipv4(),
});

// Not strict: records of other releases have other fields too.
const schema = z.object({
  name: z.string(),
  uid: uidSchema,
  /** The fabric is 10.77.<subnet>.0/24. */
  subnet: z.int().min(1).max(254),
  imageFolder: z.string(),
  initSecretHash: z.string(),
  stateDiskMiB: z.int(),
  /** Chosen when the cluster is made: a disk is formatted with integrity or without. */
  stateDisksMapped: z.boolean().default(false),
  /** Whether nodes may open connections to the host and beyond it. */
  egress: z.boolean().default(false),
  nodes: z.array(nodeSchema),
});

export type LocalNode = z.infer<typeof nodeSchema>;
/** What the provider remembers of a cluster. */
export type LocalCluster = z.infer<typeof schema>;

export const clusterFolder = (uid: string): string => join(CLUSTERS, uid);
export const nodeFolder = (uid: string, node: string): string => join(CLUSTERS, uid, 'nodes', node);
export const runtimeFolder = (uid: string): string => join(RUNTIME, uid);
/** What a node sees as /run/asterism. */
export const nodeRuntime = (uid: string, node: string): string => join(RUNTIME, uid, 'nodes', node);
/** Control channel of a node's TPM. It can reset PCRs, so a node never sees it. */
export const tpmControl = (uid: string, node: string): string => join(RUNTIME, uid, 'tpm-control', node);

export const gatewayOf = (cluster: Pick<LocalCluster, 'subnet'>): string => `10.77.${cluster.subnet}.1`;
/** The host's own address towards the fabric. */
export const hostAddressOf = (cluster: Pick<LocalCluster, 'subnet'>): string => `10.77.${cluster.subnet}.254`;
export const networkOf = (cluster: Pick<LocalCluster, 'subnet'>): string => `10.77.${cluster.subnet}.0/24`;

export async function writeCluster(cluster: LocalCluster): Promise<void> {
  const path = join(clusterFolder(cluster.uid), 'cluster.json');
  await mkdir(clusterFolder(cluster.uid), { recursive: true, mode: 0o700 });
  await writeFile(`${path}.part`, JSON.stringify(cluster, null, 2), { mode: 0o600 });
  await rename(`${path}.part`, path);
}

/** @throws AsterismError ERR_NO_CLUSTER */
export async function readCluster(uid: string): Promise<LocalCluster> {
  const found = await findCluster(uid);
  if (found !== undefined) return found;
  throw new AsterismError(
    'ERR_NO_CLUSTER',
    `there is no cluster ${uid} on this machine (${clusterFolder(uid)})`,
  );
}

/** @throws AsterismError ERR_RECORD it is damaged; ERR_PERMISSION only root may read it */
export async function findCluster(uid: string): Promise<LocalCluster | undefined> {
  const path = join(clusterFolder(uid), 'cluster.json');
  const text = await ifThere(path, readFile(path, 'utf8'));
  if (text === undefined) return undefined;
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    throw new AsterismError(
      'ERR_RECORD',
      `${path} is damaged; remove the cluster with: asterism local remove ${uid}`,
    );
  }
}

/** Every cluster of this machine whose record can be read. @throws AsterismError ERR_PERMISSION */
export async function listClusters(): Promise<LocalCluster[]> {
  const found = await Promise.all((await listUids()).map((uid) => findCluster(uid).catch(() => undefined)));
  return found.filter((cluster) => cluster !== undefined);
}

/** Every cluster of this machine, also those whose record is damaged or lost. @throws AsterismError ERR_PERMISSION */
export async function listUids(): Promise<string[]> {
  const names = (await ifThere(CLUSTERS, readdir(CLUSTERS))) ?? [];
  return names.filter((name) => uidSchema.safeParse(name).success);
}

const workspaceNote = (uid: string): string => join(clusterFolder(uid), 'workspace');

/** Notes which folder has the files of a cluster, for whoever finds it without them. */
export async function noteWorkspace(uid: string, folder: string): Promise<void> {
  await writeFile(workspaceNote(uid), folder, { mode: 0o600 });
}

/** @returns undefined where it was never noted, as for a cluster whose maker was killed at it */
export async function workspaceOf(uid: string): Promise<string | undefined> {
  return ifThere(workspaceNote(uid), readFile(workspaceNote(uid), 'utf8'));
}

/** What a reader gives; undefined only where there is nothing to read. */
async function ifThere<T>(path: string, reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    if (code !== 'EACCES') throw cause;
    throw new AsterismError('ERR_PERMISSION', `${path} can be read by root only; run it as root (sudo)`);
  }
}

/** @throws AsterismError ERR_NO_NODE */
export function nodeOf(cluster: LocalCluster, name: string): LocalNode {
  const node = cluster.nodes.find((candidate) => candidate.name === name);
  if (node !== undefined) return node;
  throw new AsterismError(
    'ERR_NO_NODE',
    `cluster ${cluster.name} has no node ${name}; it has: ${cluster.nodes.map((n) => n.name).join(', ')}`,
  );
}

/** @throws AsterismError ERR_NO_CLUSTER what is no uid is no folder of a cluster either */
export function checkUid(uid: string): void {
  if (!uidSchema.safeParse(uid).success)
    throw new AsterismError('ERR_NO_CLUSTER', `${JSON.stringify(uid)} is not the uid of a cluster`);
}

/** JSON of wire-facts 2.10 for the metadata endpoint. */
export function instanceOf(cluster: LocalCluster, node: LocalNode): Record<string, unknown> {
  return {
    Name: node.name,
    ProviderID: `asterism-local:///${cluster.uid}/${node.name}`,
    Role: node.role satisfies Role,
    VPCIP: node.address,
    SecondaryIPRange: '',
    AliasIPRanges: [],
  };
}
