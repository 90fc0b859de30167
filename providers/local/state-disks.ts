import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { activeMappings, removeMappings } from '@asterism/disk/device-mapper';
import { AsterismError } from '@asterism/errors/errors';
import { clusterFolder, type LocalCluster, nodeFolder } from './cluster.ts';
import { canMapStateDisks, host } from './host.ts';

/** Name of a node's mapping. The kernel has one list of them, for all nodes and the host. */
export const mappingOf = (uid: string, node: string): string => `${prefixOf(uid)}${node}`;
const prefixOf = (uid: string): string => `asterism-${uid}-`;
const imageOf = (uid: string, node: string): string => join(nodeFolder(uid, node), 'state-disk.img');

/** Makes a node's state disk where it has none: an empty file, which takes room as it is written to. */
export async function createStateDisk(uid: string, node: string, mebibytes: number): Promise<void> {
  const path = imageOf(uid, node);
  if (await stat(path).catch(() => undefined)) return;
  const file = await open(path, 'wx', 0o600);
  await file.truncate(mebibytes * 1024 * 1024);
  await file.close();
}

/**
 * Gives a node's state disk a block device, where the cluster's disks are mapped.
 * @returns the device; undefined where they are not
 * @throws AsterismError ERR_HOST the cluster was made on a kernel with device-mapper, and this one has none
 */
export async function attachStateDisk(cluster: LocalCluster, node: string): Promise<string | undefined> {
  if (!cluster.stateDisksMapped) return undefined;
  if (!(await canMapStateDisks()))
    throw new AsterismError(
      'ERR_HOST',
      `the state disks of cluster ${cluster.name} are mapped, but this kernel has no device-mapper with crypt and ` +
        'integrity any more; try: modprobe -a dm_crypt dm_integrity',
    );
  return (await host('losetup', '--find', '--show', imageOf(cluster.uid, node))).trim();
}

/**
 * Takes mappings and block devices of a node's state disk away, or of all nodes of a cluster. Needs no record of
 * them. The nodes' processes must have ended.
 */
export async function releaseStateDisks(uid: string, node?: string): Promise<void> {
  const mine = (name: string) =>
    node === undefined ? name.startsWith(prefixOf(uid)) : name.replace(/_dif$/, '') === mappingOf(uid, node);
  const volumes = new Set((await activeMappings()).filter(mine).map((name) => name.replace(/_dif$/, '')));
  for (const name of volumes) await removeMappings(name);
  const folder = node === undefined ? clusterFolder(uid) : nodeFolder(uid, node);
  const listed = await host('losetup', '--list', '--noheadings', '--output', 'NAME,BACK-FILE');
  for (const line of listed.split('\n')) {
    const [device, file] = line.trim().split(/\s+/);
    if (file?.startsWith(`${folder}/`) && file.endsWith('/state-disk.img'))
      await host('losetup', '-d', device!);
  }
}
