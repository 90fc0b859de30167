import { mkdir, readdir, rm } from 'node:fs/promises';
import type { StateDisk } from '@asterism/disk/state-disk';
import { runChecked } from '@asterism/runtime/program';

/** The file system on the state disk. */
export interface StateVolume {
  /** Makes it empty, on a disk that was just formatted. */
  create(name: string, key: Uint8Array): Promise<void>;
  open(name: string, key: Uint8Array): Promise<void>;
  close(name: string): Promise<void>;
}

/** Folders of the volume that stand in for folders of the read-only root. */
const BINDS = [
  ['var', '/var'],
  ['kubernetes', '/etc/kubernetes'],
  ['etccni', '/etc/cni'],
  ['opt', '/opt'],
] as const;

const TIMEOUT = { timeoutMs: 300_000 };

/** ext4 on the mapped LUKS2 volume, mounted at the layout's root. */
export class MappedVolume implements StateVolume {
  readonly #disk: StateDisk;
  readonly #root: string;

  constructor(disk: StateDisk, root: string) {
    this.#disk = disk;
    this.#root = root;
  }

  async create(name: string, key: Uint8Array): Promise<void> {
    const device = await this.#disk.map(name, key);
    await runChecked('mkfs.ext4', ['-q', '-F', device], TIMEOUT);
    await this.#mount(device);
  }

  async open(name: string, key: Uint8Array): Promise<void> {
    await this.#mount(await this.#disk.map(name, key));
  }

  async close(name: string): Promise<void> {
    for (const [, target] of [...BINDS].reverse()) await runChecked('umount', [target], TIMEOUT);
    await runChecked('umount', [this.#root], TIMEOUT);
    await this.#disk.unmap(name);
  }

  async #mount(device: string): Promise<void> {
    await mkdir(this.#root, { recursive: true });
    await runChecked('mount', ['-t', 'ext4', '-o', 'nodev,nosuid', device, this.#root], TIMEOUT);
    for (const [folder, target] of BINDS) {
      await mkdir(`${this.#root}/${folder}`, { recursive: true, mode: 0o755 });
      await mkdir(target, { recursive: true });
      await runChecked('mount', ['--bind', `${this.#root}/${folder}`, target], TIMEOUT);
    }
  }
}

/** Folders whose content a member wrote: a disk that is formatted takes it along. */
const MEMBER_FOLDERS = ['asterism', 'kubelet', 'kubernetes', 'etccni', 'var/lib/etcd', 'var/lib/kubelet'];

/**
 * Where the kernel has no device-mapper: a plain folder that the launcher has mounted stands in for the volume.
 * The disk's key is proven all the same, but does not protect what is written.
 */
export class PlainVolume implements StateVolume {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  async create(): Promise<void> {
    for (const folder of MEMBER_FOLDERS) {
      const path = `${this.#root}/${folder}`;
      // The folders themselves may be mount points.
      for (const name of await readdir(path).catch(() => [])) {
        await rm(`${path}/${name}`, { recursive: true, force: true });
      }
    }
  }

  async open(): Promise<void> {}
  async close(): Promise<void> {}
}
