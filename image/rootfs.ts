import { chmod, copyFile, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { PAUSE_REFERENCE } from '@asterism/kubernetes/components/catalogue';
import { PINNED_NODE, ROOT } from './bundle.ts';

const FILES = join(ROOT, 'image/files');
/** Units that would act on the host, wait for hardware that a node of this kind has not, or have no use in it. */
export const MASKED = [
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'console-getty.service',
  'dev-hugepages.mount',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'getty.target',
  'modprobe@.service',
  'sys-fs-fuse-connections.mount',
  'sys-kernel-config.mount',
  'sys-kernel-debug.mount',
  'sys-kernel-tracing.mount',
  'systemd-ask-password-console.path',
  'systemd-ask-password-wall.path',
  'systemd-initctl.socket',
  // disk-mapper.service does it when there is a disk to flush to.
  'systemd-journal-flush.service',
  'systemd-journald-audit.socket',
  'systemd-logind.service',
  'systemd-modules-load.service',
  'systemd-networkd.service',
  'systemd-remount-fs.service',
  'systemd-resolved.service',
  'systemd-sysctl.service',
  'systemd-timesyncd.service',
  'systemd-tpm2-setup.service',
  'systemd-udevd-control.socket',
  'systemd-udevd-kernel.socket',
  'systemd-udevd.service',
];
const ENABLED = ['disk-mapper.service', 'bootstrapper.service'];
/** Places that boot.sh and the provider mount something over. */
const MOUNT_POINTS = ['usr/lib/asterism/bin', 'etc/kubernetes', 'etc/cni'];

/** What is ours in the root file system. */
export interface OwnParts {
  /** Folder with containerd and its tools. */
  readonly nodePrograms: string;
  /** Archive with the container image of the services. */
  readonly servicesImage: string;
  /** Folder with the manifests that the bootstrapper applies, in the order of their names. */
  readonly manifests: string;
}

/**
 * Adds to a copy of the Debian part what is ours: units, configuration, programs, images, manifests. The copy may
 * consist of hard links: no file in it is written to, only replaced.
 */
export async function addOwnFiles(root: string, parts: OwnParts): Promise<void> {
  for (const folder of MOUNT_POINTS) await mkdir(join(root, folder), { recursive: true });
  await replace(join(root, 'usr/lib/asterism/node'), (to) => copyFile(PINNED_NODE, to));
  await chmod(join(root, 'usr/lib/asterism/node'), 0o755);
  await copyAll(parts.nodePrograms, join(root, 'usr/local/bin'));
  await copyAll(parts.manifests, join(root, 'usr/lib/asterism/deploy'));
  await replace(join(root, 'usr/lib/asterism/images/services.tar'), (to) =>
    copyFile(parts.servicesImage, to),
  );

  const containerd = await readFile(join(FILES, 'etc/containerd.toml'), 'utf8');
  await replace(join(root, 'etc/containerd/config.toml'), (to) =>
    writeFile(to, containerd.replace('@PAUSE@', PAUSE_REFERENCE)),
  );
  for (const [from, to] of [
    ['etc/cni.conflist.template', 'etc/containerd/cni.conflist.template'],
    ['etc/journald.conf', 'etc/systemd/journald.conf.d/asterism.conf'],
    ['etc/system.conf', 'etc/systemd/system.conf.d/asterism.conf'],
  ] as const) {
    await replace(join(root, to), (target) => copyFile(join(FILES, from), target));
  }

  const units = join(root, 'etc/systemd/system');
  await copyAll(join(FILES, 'units'), units);
  for (const name of ENABLED) {
    await replace(join(units, 'multi-user.target.wants', name), (to) => symlink(`../${basename(to)}`, to));
  }
  for (const name of MASKED) await replace(join(units, name), (to) => symlink('/dev/null', to));
}

/** Makes a file in place of what is there: a hard link's other names keep the old content. */
async function replace(path: string, make: (to: string) => Promise<unknown>): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await rm(path, { recursive: true, force: true });
  await make(path);
}

async function copyAll(from: string, to: string): Promise<void> {
  for (const name of await readdir(from)) {
    if (!name.startsWith('.')) await replace(join(to, name), (target) => copyFile(join(from, name), target));
  }
}
