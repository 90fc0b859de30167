import { stat, statfs } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { dirname } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';

const GIB = 1024 ** 3;

/** Free disk that something takes. */
export interface Room {
  /** It need not be there yet: its nearest parent that is counts. */
  readonly folder: string;
  readonly gib: number;
}

/** What a machine must have for a local cluster. */
export interface Needs {
  readonly nodes: number;
  readonly room: readonly Room[];
}

/**
 * Looks at the machine before anything is made on it.
 *
 * @returns remarks about what is tight
 * @throws AsterismError (ERR_REQUIREMENTS) naming everything that is missing
 */
export async function checkRequirements(needs: Needs): Promise<string[]> {
  const missing: string[] = [];
  if (process.platform !== 'linux') missing.push('Linux (nodes are Linux namespaces)');
  if (process.getuid?.() !== 0) {
    missing.push('root (nodes have namespaces, cgroups and mounts of their own): run it with sudo');
  }
  // Measured: about 0.7 GiB for a control plane and 0.15 GiB for a worker, before anything runs on them.
  const memory = totalmem() / GIB;
  const needed = 2 + 0.5 * needs.nodes;
  if (memory < needed) missing.push(`${needed} GiB of memory (there are ${memory.toFixed(1)})`);
  missing.push(...(await missingRoom(needs.room)));
  if (missing.length > 0) {
    throw new AsterismError(
      'ERR_REQUIREMENTS',
      `this machine cannot hold the cluster; it needs ${missing.join('; ')}. With --force it is tried nonetheless`,
    );
  }
  return availableParallelism() < 2 ? ['only one processor: everything will take long'] : [];
}

/** Folders of one file system share what is free there. */
async function missingRoom(room: readonly Room[]): Promise<string[]> {
  const disks = new Map<number, { free: number; rooms: Room[] }>();
  for (const one of room.filter(({ gib }) => gib > 0)) {
    const { device, free } = await diskOf(one.folder);
    const disk = disks.get(device) ?? { free, rooms: [] };
    disk.rooms.push(one);
    disks.set(device, disk);
  }
  return [...disks.values()].flatMap(({ free, rooms }) => {
    const sum = rooms.reduce((total, { gib }) => total + gib, 0);
    if (free / GIB >= sum) return [];
    const parts = rooms.map(({ folder, gib }) => `${gib} below ${folder}`).join(' and ');
    return [`${sum} GiB of free disk, ${parts} (there are ${(free / GIB).toFixed(1)})`];
  });
}

async function diskOf(folder: string): Promise<{ device: number; free: number }> {
  for (let at = folder; ; at = dirname(at)) {
    try {
      const { bavail, bsize } = await statfs(at);
      return { device: (await stat(at)).dev, free: bavail * bsize };
    } catch (error) {
      if (at === dirname(at)) throw error;
    }
  }
}
