import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Folders of this process in every cgroup hierarchy (version 1 and 2) that is mounted. */
async function ownFolders(): Promise<string[]> {
  const lines = (await readFile('/proc/self/cgroup', 'utf8')).trim().split('\n');
  return lines
    .map((line) => {
      const [, controllers = '', path = '/'] = line.split(':');
      if (controllers !== '') return join('/sys/fs/cgroup', controllers.replace('name=', ''), path);
      // With version 2 alone, processes may only be in leaves: nodes get a place at the root.
      return existsSync('/sys/fs/cgroup/unified') ? join('/sys/fs/cgroup/unified', path) : '/sys/fs/cgroup';
    })
    .filter((folder) => existsSync(folder));
}

const clusterGroup = (uid: string): string => `asterism-${uid}`;

/**
 * Makes a cgroup for a node in every hierarchy: systemd inside must not see, nor write to, the host's.
 * @returns the `cgroup.procs` files that the node's first process has to be written to
 */
export async function createNodeGroups(uid: string, node: string): Promise<string[]> {
  const files: string[] = [];
  for (const own of await ownFolders()) {
    let folder = own;
    for (const part of [clusterGroup(uid), node]) {
      const parent = folder;
      folder = join(folder, part);
      await mkdir(folder, { recursive: true });
      // A cpuset of version 1 starts empty and takes no process.
      for (const name of ['cpuset.cpus', 'cpuset.mems']) {
        if (existsSync(join(folder, name)) && own.includes('/cpuset')) {
          await writeFile(join(folder, name), await readFile(join(parent, name), 'utf8'));
        }
      }
    }
    files.push(join(folder, 'cgroup.procs'));
  }
  return files;
}

/** Removes the cgroups of a node, or of the whole cluster. Processes in them must be gone; retried for a moment. */
export async function removeGroups(uid: string, node?: string): Promise<void> {
  for (const hierarchy of await hierarchies()) {
    for (const folder of await find(hierarchy, clusterGroup(uid))) {
      await removeTree(node === undefined ? folder : join(folder, node));
    }
  }
}

/** Processes in any cgroup of a node or cluster. */
export async function processesIn(uid: string, node?: string): Promise<number[]> {
  const pids = new Set<number>();
  for (const hierarchy of await hierarchies()) {
    for (const folder of await find(hierarchy, clusterGroup(uid))) {
      const top = node === undefined ? folder : join(folder, node);
      for (const entry of await readdir(top, { recursive: true, withFileTypes: true }).catch(() => [])) {
        if (entry.name !== 'cgroup.procs') continue;
        const text = await readFile(join(entry.parentPath, entry.name), 'utf8').catch(() => '');
        for (const line of text.split('\n')) if (Number(line) > 0) pids.add(Number(line));
      }
    }
  }
  return [...pids];
}

async function hierarchies(): Promise<string[]> {
  if (existsSync('/sys/fs/cgroup/cgroup.controllers')) return ['/sys/fs/cgroup'];
  return (await readdir('/sys/fs/cgroup')).map((name) => join('/sys/fs/cgroup', name));
}

/** The cluster may have been made from another cgroup than the one of this process, a few levels deep. */
async function find(folder: string, name: string, depth = 4): Promise<string[]> {
  if (existsSync(join(folder, name))) return [join(folder, name)];
  if (depth === 0) return [];
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const below = await Promise.all(
    entries
      .filter((entry) => entry.isDirectory())
      .map((entry) => find(join(folder, entry.name), name, depth - 1)),
  );
  return below.flat();
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
