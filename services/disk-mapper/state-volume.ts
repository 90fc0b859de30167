import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '@asterism/disk/atomic-file';
import type { StateDisk } from '@asterism/disk/state-disk';
import { runChecked } from '@asterism/runtime/program';

/** The file system on the state disk. */
export interface StateVolume {
  /** Makes it empty, on a disk that was just formatted, and opens it. */
  create(key: Uint8Array, diskUuid: string, signal: AbortSignal): Promise<void>;
  open(key: Uint8Array): Promise<void>;
  /** Closes it, also where it was opened by half. */
  close(): Promise<void>;
  /** Whether this boot has opened it, to the end. */
  isOpen(diskUuid: string): Promise<boolean>;
}

/** Folders of the volume that stand in for folders of the read-only root. */
const BINDS = [
  ['var', '/var'],
  ['kubernetes', '/etc/kubernetes'],
  ['etccni', '/etc/cni'],
  ['opt', '/opt'],
] as const;
/** Further folders that others count on. */
const FOLDERS = ['bin', 'images'];

const TIMEOUT = { timeoutMs: 300_000 };

export interface MappedVolumeOptions {
  readonly disk: StateDisk;
  /** Name of the mapping: no other node on this kernel has the same. */
  readonly mapping: string;
  /** Where it is mounted. */
  readonly root: string;
  /** Folders of the volume and where in the root file system they are seen. */
  readonly binds?: readonly (readonly [folder: string, target: string])[];
}

/**
 * ext4 on the mapped LUKS2 volume. Whoever opens it first closes what a disk-mapper that was killed left behind; a
 * step that fails takes back those before it.
 */
export class MappedVolume implements StateVolume {
  readonly #disk: StateDisk;
  readonly #mapping: string;
  readonly #root: string;
  readonly #binds: NonNullable<MappedVolumeOptions['binds']>;

  constructor({ disk, mapping, root, binds = BINDS }: MappedVolumeOptions) {
    this.#disk = disk;
    this.#mapping = mapping;
    this.#root = root;
    this.#binds = binds;
  }

  async create(key: Uint8Array, _diskUuid: string, signal: AbortSignal): Promise<void> {
    const limits = { ...TIMEOUT, signal };
    await this.close();
    await this.#disk.wipe(this.#mapping, key, signal);
    await this.#orClose(async () => {
      const device = await this.#disk.map(this.#mapping, key);
      await runChecked('mkfs.ext4', ['-q', '-F', device], limits);
      await this.#mount(device);
      for (const [folder, target] of this.#binds) {
        await mkdir(join(this.#root, folder), { mode: 0o755 });
        // What the image has there goes along, and stays the node's from then on.
        await runChecked('cp', ['-a', '--one-file-system', `${target}/.`, join(this.#root, folder)], limits);
      }
      for (const folder of FOLDERS) await mkdir(join(this.#root, folder), { mode: 0o755 });
      await this.#bind();
    });
  }

  async open(key: Uint8Array): Promise<void> {
    await this.close();
    await this.#orClose(async () => {
      await this.#mount(await this.#disk.map(this.#mapping, key));
      await this.#bind();
    });
  }

  async close(): Promise<void> {
    // The last one first: it may stand on those before. One place can be mounted over more than once.
    const mine = new Set([this.#root, ...this.#binds.map(([, target]) => target)]);
    for (const target of (await mountPoints()).reverse())
      if (mine.has(target)) await runChecked('umount', [target], TIMEOUT);
    await this.#disk.unmap(this.#mapping);
  }

  async isOpen(): Promise<boolean> {
    const mounted = new Set(await mountPoints());
    return [this.#root, ...this.#binds.map(([, target]) => target)].every((target) => mounted.has(target));
  }

  async #mount(device: string): Promise<void> {
    await mkdir(this.#root, { recursive: true });
    await runChecked('mount', ['-t', 'ext4', '-o', 'nodev,nosuid', device, this.#root], TIMEOUT);
  }

  async #bind(): Promise<void> {
    for (const [folder, target] of this.#binds)
      await runChecked('mount', ['--bind', join(this.#root, folder), target], TIMEOUT);
  }

  async #orClose(steps: () => Promise<void>): Promise<void> {
    try {
      await steps();
    } catch (error) {
      await this.close();
      throw error;
    }
  }
}

/** proc_pid_mountinfo(5): the fifth field of each line, in the order in which they were mounted. */
async function mountPoints(): Promise<string[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).trimEnd().split('\n');
  return lines.map((line) => line.split(' ')[4]!);
}

/** Folders whose content a member wrote: a disk that is formatted takes it along. */
const MEMBER_FOLDERS = ['asterism', 'kubelet', 'kubernetes', 'etccni', 'var/lib/etcd', 'var/lib/kubelet'];

/**
 * Where the kernel has no device-mapper: a plain folder that the launcher has mounted stands in for the volume.
 * The disk's key is proven all the same, but does not protect what is written.
 */
export class PlainVolume implements StateVolume {
  readonly #root: string;
  /** UUID of the disk that the folder was emptied for. */
  readonly #marker: string;

  constructor(root: string) {
    this.#root = root;
    this.#marker = join(root, 'asterism/disk-uuid');
  }

  async create(_key: Uint8Array, diskUuid: string): Promise<void> {
    for (const folder of MEMBER_FOLDERS) {
      const path = join(this.#root, folder);
      // The folders themselves may be mount points.
      for (const name of await readdir(path).catch(() => [])) {
        await rm(join(path, name), { recursive: true, force: true });
      }
    }
    // Last: who is killed before has not emptied it.
    await writeFileAtomic(this.#marker, diskUuid);
  }

  async open(): Promise<void> {}
  async close(): Promise<void> {}

  async isOpen(diskUuid: string): Promise<boolean> {
    return (await readFile(this.#marker, 'utf8').catch(() => undefined)) === diskUuid;
  }
}
