import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';

const ROOT = '/sys/fs/cgroup';
/** What the kubelet wants to account and limit. */
const CONTROLLERS_V1 = ['cpu', 'cpuacct', 'cpuset', 'memory', 'pids', 'devices', 'freezer', 'blkio'] as const;
const CONTROLLERS_V2 = ['cpu', 'cpuset', 'io', 'memory', 'pids'] as const;

const isUnified = (): boolean => existsSync(join(ROOT, 'cgroup.controllers'));

/** Controllers that nodes need and this machine's cgroup hierarchies do not have, or do not pass on. */
export async function missingControllers(): Promise<string[]> {
  if (isUnified()) {
    // In a container the root that is seen is not the machine's: with processes in it, it passes nothing on.
    await delegate(ROOT);
    return lacking(join(ROOT, 'cgroup.subtree_control'));
  }
  const present = (await readFile('/proc/self/cgroup', 'utf8')).split('\n').flatMap((line) => {
    const [, controllers = ''] = line.split(':');
    return controllers.split(',');
  });
  return CONTROLLERS_V1.filter((name) => !present.includes(name));
}

/** What a person can do about {@link missingControllers}. */
export const controllerAdvice = (): string =>
  isUnified()
    ? `start the kernel without cgroup_disable=; in a container, give it the cgroups of its host (--cgroupns=host), or ` +
      `move the processes in ${ROOT} into a cgroup below it`
    : `start the kernel without cgroup_disable=, and mount them below ${ROOT}`;

async function lacking(file: string): Promise<string[]> {
  const present = (await readFile(file, 'utf8')).trim().split(' ');
  return CONTROLLERS_V2.filter((name) => !present.includes(name));
}

/** Where nodes get their place in every cgroup hierarchy (version 1 and 2) that is mounted. */
async function parentFolders(): Promise<string[]> {
  // With version 2 alone, processes may only be in leaves, and this process' own folder is one: a place at the root.
  if (isUnified()) return [ROOT];
  const lines = (await readFile('/proc/self/cgroup', 'utf8')).trim().split('\n');
  return lines
    .map((line) => {
      const [, controllers = '', path = '/'] = line.split(':');
      const hierarchy = controllers === '' ? 'unified' : controllers.replace('name=', '');
      // The supervisor, which boots nodes too, is in a cgroup of its cluster: theirs are beside it, not below.
      return join(ROOT, hierarchy, path.replace(/\/asterism-[0-9a-f]{8}(\/.*)?$/, ''));
    })
    .filter((folder) => existsSync(folder));
}

const clusterGroup = (uid: string): string => `asterism-${uid}`;

/** Cgroup of what runs on the host for a node: its TPM and what waits for its end. No node can have that name. */
export const hostGroupOf = (node: string): string => `${node}.host`;

/**
 * Makes a cgroup of a cluster in every hierarchy. A node's own is all that systemd in it sees: it must not see, nor
 * write to, the host's. Everything that is started for a cluster is in one, so that removal finds it.
 * @returns the `cgroup.procs` files that a process has to be written to
 * @throws AsterismError ERR_HOST it would lack controllers: the kubelet of a node without them does not start
 */
export async function createGroup(uid: string, name: string): Promise<string[]> {
  const files: string[] = [];
  for (const parent of await parentFolders()) {
    const cluster = join(parent, clusterGroup(uid));
    const own = join(cluster, name);
    if (isUnified()) await delegate(parent);
    await makeGroup(cluster, parent);
    if (isUnified()) await delegate(cluster);
    await makeGroup(own, cluster);
    const missing = isUnified() ? await lacking(join(own, 'cgroup.controllers')) : [];
    if (missing.length > 0)
      throw new AsterismError('ERR_HOST', `${own} lacks ${missing.join(', ')}; ${controllerAdvice()}`);
    files.push(join(own, 'cgroup.procs'));
  }
  return files;
}

async function makeGroup(folder: string, parent: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  // A cpuset of version 1 starts empty and takes no process.
  for (const name of isUnified() ? [] : ['cpuset.cpus', 'cpuset.mems']) {
    if (existsSync(join(folder, name)))
      await writeFile(join(folder, name), await readFile(join(parent, name), 'utf8'));
  }
}

/** Version 2: children have only the controllers that their parent passes on. */
async function delegate(folder: string): Promise<void> {
  const present = (await readFile(join(folder, 'cgroup.controllers'), 'utf8')).trim().split(' ');
  for (const name of present)
    await writeFile(join(folder, 'cgroup.subtree_control'), `+${name}`).catch(() => {
      // Some (hugetlb, rdma, misc) may be refused. Whether those that count were is looked at afterwards.
    });
}

/** Removes a cgroup of a cluster, or all of them. Processes in them must be gone; retried for a moment. */
export async function removeGroups(uid: string, name?: string): Promise<void> {
  for (const folder of await groupsOf(uid)) {
    await removeTree(name === undefined ? folder : join(folder, name));
  }
}

/** Processes in a cgroup of a cluster, or in any of them. */
export async function processesIn(uid: string, name?: string): Promise<number[]> {
  const pids = new Set<number>();
  for (const folder of await groupsOf(uid)) {
    const top = name === undefined ? folder : join(folder, name);
    for (const entry of await readdir(top, { recursive: true, withFileTypes: true }).catch(() => [])) {
      if (entry.name !== 'cgroup.procs') continue;
      const text = await readFile(join(entry.parentPath, entry.name), 'utf8').catch(() => '');
      for (const line of text.split('\n')) if (Number(line) > 0) pids.add(Number(line));
    }
  }
  return [...pids];
}

async function groupsOf(uid: string): Promise<string[]> {
  const hierarchies = isUnified() ? [ROOT] : (await readdir(ROOT)).map((name) => join(ROOT, name));
  const found = await Promise.all(hierarchies.map((folder) => find(folder, clusterGroup(uid))));
  return found.flat();
}

/** The cluster may have been made from another cgroup than the one of this process. */
async function find(folder: string, name: string, depth = 8): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const below: string[] = [];
  for (const entry of entries) {
    if (!entry.isDirectory()) continue;
    if (entry.name === name) below.push(join(folder, entry.name));
    else if (depth > 0 && !entry.name.startsWith('asterism-'))
      below.push(...(await find(join(folder, entry.name), name, depth - 1)));
  }
  return below;
}

async function removeTree(folder: string): Promise<void> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) if (entry.isDirectory()) await removeTree(join(folder, entry.name));
  for (let attempt = 0; attempt < 50; attempt++) {
    try {
      await rmdir(folder);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
