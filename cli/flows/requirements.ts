import { readFile, statfs } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { AsterismError } from '@asterism/errors/errors';

const GIB = 1024 ** 3;

/** What a machine must have for a local cluster of this size. */
export interface Needs {
  readonly nodes: number;
  /** Folder in whose file system the nodes' disks will be; its nearest existing parent counts. */
  readonly folder: string;
}

/**
 * Looks at the machine before anything is made on it.
 *
 * @returns remarks about what is tight
 * @throws AsterismError (ERR_REQUIREMENTS) naming everything that is missing
 */
export async function checkRequirements(needs: Needs): Promise<string[]> {
  const missing: string[] = [];
  const tight: string[] = [];
  if (process.platform !== 'linux') missing.push('Linux (nodes are Linux namespaces)');
  if (process.getuid?.() !== 0) {
    missing.push('root (nodes have namespaces, cgroups and mounts of their own): run it with sudo');
  }
  // Measured: about 0.7 GiB for a control plane and 0.15 GiB for a worker, before anything runs on them.
  const memory = totalmem() / GIB;
  const needed = 2 + 0.5 * needs.nodes;
  if (memory < needed) missing.push(`${needed} GiB of memory (there are ${memory.toFixed(1)})`);
  if (availableParallelism() < 2) tight.push('only one processor: everything will take long');
  // Measured: a cluster of two nodes holds 33 of them, the limit is for all clusters together, and a kubelet that
  // gets none ends.
  const watches = Number(
    await readFile('/proc/sys/fs/inotify/max_user_instances', 'utf8').catch(() => 'NaN'),
  );
  if (watches < 32 * needs.nodes + 64) {
    tight.push(
      `fs.inotify.max_user_instances is ${watches}: kubelets may fail with "too many open files"; ` +
        'raise it with: sysctl -w fs.inotify.max_user_instances=1024',
    );
  }
  const free = await freeBytes(needs.folder);
  const disk = 4 + 2 * needs.nodes;
  if (free / GIB < disk) missing.push(`${disk} GiB of free disk (there are ${(free / GIB).toFixed(1)})`);
  if (missing.length > 0) {
    throw new AsterismError(
      'ERR_REQUIREMENTS',
      `this machine cannot hold the cluster; it needs ${missing.join('; ')}`,
    );
  }
  return tight;
}

async function freeBytes(folder: string): Promise<number> {
  for (let at = folder; ; at = at.replace(/\/[^/]*$/, '') || '/') {
    try {
      const { bavail, bsize } = await statfs(at);
      return bavail * bsize;
    } catch (error) {
      if (at === '/') throw error;
    }
  }
}
