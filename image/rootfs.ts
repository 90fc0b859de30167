import { createHash } from 'node:crypto';
import {
  chmod,
  copyFile,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildOptions } from '@asterism/kubernetes/components/build-go';
import { cacheFolder } from '@asterism/kubernetes/components/cache';
import { PAUSE_REFERENCE } from '@asterism/kubernetes/components/catalogue';
import { runChecked } from '@asterism/runtime/program';
import { ROOT } from './bundle.ts';

const FILES = join(ROOT, 'image/files');
/** What a node needs of Debian: systemd, a container runtime's tools, LUKS, and what kubelet and kube-proxy call. */
const PACKAGES = [
  'ca-certificates',
  'conntrack',
  'cryptsetup-bin',
  'dbus',
  'e2fsprogs',
  'ethtool',
  'iproute2',
  'iptables',
  'kmod',
  'libseccomp2',
  'libstdc++6',
  'mount',
  'procps',
  'runc',
  'systemd',
  'systemd-sysv',
  'util-linux',
];
/** Units that would act on the host, or wait for hardware that a node of this kind has not. */
const MASKED = [
  'systemd-udevd.service',
  'systemd-udevd-kernel.socket',
  'systemd-udevd-control.socket',
  'systemd-modules-load.service',
  'systemd-sysctl.service',
  'systemd-remount-fs.service',
  'systemd-networkd.service',
  'systemd-resolved.service',
  'systemd-timesyncd.service',
  'systemd-logind.service',
  'getty.target',
  'console-getty.service',
  'dev-hugepages.mount',
  'sys-kernel-debug.mount',
  'sys-kernel-tracing.mount',
  'sys-kernel-config.mount',
  'sys-fs-fuse-connections.mount',
  'systemd-tpm2-setup.service',
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'fstrim.timer',
];
const EPOCH = '1767225600';

/**
 * The Debian part of the root file system, made once per list of packages: it takes longest and changes least.
 * @returns a folder that is not to be written to
 */
export async function debianRoot({ signal, onDetail }: BuildOptions): Promise<string> {
  const id = createHash('sha256').update(JSON.stringify(PACKAGES)).digest('hex').slice(0, 16);
  const folder = cacheFolder('image', `debian-${id}`);
  if (await stat(folder).catch(() => undefined)) return folder;
  onDetail('Debian packages of the node');
  const work = `${folder}.part`;
  await rm(work, { recursive: true, force: true });
  await mkdir(cacheFolder('image'), { recursive: true });
  await runChecked(
    'mmdebstrap',
    [
      '--quiet',
      '--variant=minbase',
      '--mode=root',
      `--include=${PACKAGES.join(',')}`,
      '--dpkgopt=path-exclude=/usr/share/man/*',
      '--dpkgopt=path-exclude=/usr/share/doc/*',
      '--dpkgopt=path-exclude=/usr/share/locale/*',
      'bookworm',
      work,
    ],
    {
      timeoutMs: 1_200_000,
      signal,
      env: { ...(process.env as Record<string, string>), LC_ALL: 'C', SOURCE_DATE_EPOCH: EPOCH },
    },
  );
  await rename(work, folder);
  return folder;
}

/** Adds to a copy of the Debian part what is ours: units, configuration, programs, images, manifests. */
export async function addOwnFiles(
  root: string,
  parts: { readonly nodePrograms: string; readonly servicesImage: string; readonly manifests: string },
): Promise<void> {
  const lib = join(root, 'usr/lib/asterism');
  for (const folder of [
    join(lib, 'bin'),
    join(lib, 'images'),
    join(lib, 'deploy'),
    join(root, 'etc/kubernetes'),
    join(root, 'etc/cni'),
    join(root, 'etc/containerd'),
  ]) {
    await mkdir(folder, { recursive: true });
  }
  await copyFile(process.execPath, join(lib, 'node'));
  await chmod(join(lib, 'node'), 0o755);
  for (const name of await readdir(parts.nodePrograms)) {
    if (!name.startsWith('.'))
      await copyFile(join(parts.nodePrograms, name), join(root, 'usr/local/bin', name));
  }
  await copyFile(parts.servicesImage, join(lib, 'images/services.tar'));
  for (const name of await readdir(parts.manifests))
    await copyFile(join(parts.manifests, name), join(lib, 'deploy', name));
  const containerd = await readFile(join(FILES, 'etc/containerd.toml'), 'utf8');
  await writeFile(join(root, 'etc/containerd/config.toml'), containerd.replace('@PAUSE@', PAUSE_REFERENCE));
  await copyFile(
    join(FILES, 'etc/cni.conflist.template'),
    join(root, 'etc/containerd/cni.conflist.template'),
  );

  const units = join(root, 'etc/systemd/system');
  const wanted = join(units, 'multi-user.target.wants');
  await mkdir(wanted, { recursive: true });
  for (const name of await readdir(join(FILES, 'units')))
    await copyFile(join(FILES, 'units', name), join(units, name));
  for (const name of ['disk-mapper.service', 'bootstrapper.service'])
    await symlink(`../${name}`, join(wanted, name));
  for (const name of MASKED) {
    await rm(join(units, name), { force: true });
    await symlink('/dev/null', join(units, name));
  }
  for (const name of ['etc/machine-id', 'etc/resolv.conf', 'etc/hosts', 'etc/hostname']) {
    await rm(join(root, name), { force: true });
    await writeFile(join(root, name), '');
  }
  for (const name of [
    'var/cache/apt',
    'var/lib/apt/lists',
    'var/log/apt',
    'var/log/dpkg.log',
    'var/cache/ldconfig/aux-cache',
    'etc/machine-id.part',
  ]) {
    await rm(join(root, name), { recursive: true, force: true });
  }
}

/** Packs a tree as squashfs: sorted, without times and owners of the build, so that the same tree gives the same bytes. */
export async function packSquashfs(root: string, to: string, signal: AbortSignal): Promise<void> {
  await rm(to, { force: true });
  await runChecked(
    'mksquashfs',
    [
      root,
      to,
      '-noappend',
      '-quiet',
      '-no-progress',
      '-comp',
      'zstd',
      '-Xcompression-level',
      '1',
      '-all-root',
      '-no-xattrs',
      '-mkfs-time',
      EPOCH,
      '-all-time',
      EPOCH,
      '-processors',
      '2',
    ],
    { timeoutMs: 900_000, signal },
  );
}
