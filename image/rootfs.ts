import { copyFile, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PAUSE_REFERENCE } from '@asterism/kubernetes/components/catalogue';
import { place, placeFolder } from '@asterism/kubernetes/oci/place';
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
  const file = (path: string, from: string) => place(root, path, 0o644, (to) => copyFile(from, to));
  const link = (path: string, target: string) => place(root, path, undefined, (to) => symlink(target, to));

  for (const folder of MOUNT_POINTS) await placeFolder(root, folder);
  await place(root, 'usr/lib/asterism/node', 0o755, (to) => copyFile(PINNED_NODE, to));
  await copyAll(parts.nodePrograms, root, 'usr/local/bin', 0o755);
  await copyAll(parts.manifests, root, 'usr/lib/asterism/deploy', 0o644);
  await file('usr/lib/asterism/images/services.tar', parts.servicesImage);

  const containerd = await readFile(join(FILES, 'etc/containerd.toml'), 'utf8');
  await place(root, 'etc/containerd/config.toml', 0o644, (to) =>
    writeFile(to, containerd.replace('@PAUSE@', PAUSE_REFERENCE)),
  );
  await file('etc/containerd/cni.conflist.template', join(FILES, 'etc/cni.conflist.template'));
  await file('etc/systemd/journald.conf.d/asterism.conf', join(FILES, 'etc/journald.conf'));
  await file('etc/systemd/system.conf.d/asterism.conf', join(FILES, 'etc/system.conf'));

  const units = 'etc/systemd/system';
  await copyAll(join(FILES, 'units'), root, units, 0o644);
  for (const name of ENABLED) {
    await link(`${units}/multi-user.target.wants/${name}`, `../${name}`);
  }
  for (const name of MASKED) await link(`${units}/${name}`, '/dev/null');
}

async function copyAll(from: string, root: string, to: string, mode: number): Promise<void> {
  for (const name of await readdir(from)) {
    if (name.startsWith('.')) continue;
    await place(root, join(to, name), mode, (target) => copyFile(join(from, name), target));
  }
}
