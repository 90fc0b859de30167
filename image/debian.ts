import { createHash } from 'node:crypto';
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildOptions } from '@asterism/kubernetes/components/build-go';
import { cacheFolder } from '@asterism/kubernetes/components/cache';
import { runChecked } from '@asterism/runtime/program';

/** Time that everything in an image bears: seconds since 1970. */
export const EPOCH = '1767225600';
const TIMEOUT_MS = 20 * 60_000;
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
  // Instead of usrmerge, which would bring all of perl.
  'usr-is-merged',
];
/** Needed to install packages, not to run a node: without them nobody adds to a running node in passing. */
const INSTALLERS = [
  ['adduser', 'apt', 'debian-archive-keyring', 'gpgv', 'libapt-pkg6.0'],
  ['debconf', 'init-system-helpers', 'perl-base'],
];
/** Libraries of those alone; dpkg refuses to remove one that something else needs. */
const THEIR_LIBRARIES = [
  'libgnutls30',
  'libhogweed6',
  'libidn2-0',
  'libnettle8',
  'libtasn1-6',
  'libunistring2',
  'libxxhash0',
];
const LEFT_OUT = ['doc', 'doc-base', 'info', 'lintian', 'locale', 'man', 'bash-completion', 'bug', 'menu'];
/** What differs from build to build, or is for installing only. */
const REMOVED = [
  'boot',
  'etc/apt',
  'etc/cron.d',
  'etc/cron.daily',
  'etc/group-',
  'etc/gshadow-',
  'etc/passwd-',
  'etc/shadow-',
  'var/cache/apt',
  'var/cache/debconf',
  'var/cache/ldconfig',
  'var/lib/apt',
  'var/lib/dpkg/available',
  'var/lib/dpkg/diversions-old',
  'var/lib/dpkg/lock',
  'var/lib/dpkg/lock-frontend',
  'var/lib/dpkg/statoverride-old',
  'var/lib/dpkg/status-old',
  'var/lib/dpkg/triggers',
  'var/log/alternatives.log',
  'var/log/apt',
  'var/log/bootstrap.log',
  'var/log/dpkg.log',
];
/** Written at each boot, or by whoever boots it. */
const EMPTIED = ['etc/machine-id', 'etc/resolv.conf', 'etc/hosts', 'etc/hostname'];

/** A Debian package in the image. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
}

/**
 * The Debian part of the root file system, made once per list of packages: it takes longest and changes least. The
 * same packages give the same bytes.
 * @returns a folder that is not to be written to
 */
export async function debianRoot({ signal, onDetail }: BuildOptions): Promise<string> {
  const purge = (force: string, names: readonly string[]) =>
    `--customize-hook=chroot "$1" dpkg --purge --force-remove-essential ${force} ${names.join(' ')}`;
  const args = [
    '--quiet',
    '--variant=minbase',
    '--mode=root',
    '--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr',
    `--include=${PACKAGES.join(',')}`,
    ...LEFT_OUT.map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`),
    ...INSTALLERS.map((names) => purge('--force-depends', names)),
    purge('', THEIR_LIBRARIES),
    'bookworm',
  ];
  const recipe = JSON.stringify([args, REMOVED, EMPTIED, EPOCH]);
  const id = createHash('sha256').update(recipe).digest('hex').slice(0, 16);
  const folder = cacheFolder('image', `debian-${id}`);
  if (await stat(folder).catch(() => undefined)) return folder;
  onDetail('Debian packages of the node');
  const work = `${folder}.part`;
  await rm(work, { recursive: true, force: true });
  await runChecked('mmdebstrap', [...args, work], {
    timeoutMs: TIMEOUT_MS,
    signal,
    env: { ...(process.env as Record<string, string>), LC_ALL: 'C', SOURCE_DATE_EPOCH: EPOCH },
  });
  for (const name of REMOVED) await rm(join(work, name), { recursive: true, force: true });
  for (const name of EMPTIED) {
    await rm(join(work, name), { force: true });
    await writeFile(join(work, name), '');
  }
  await rename(work, folder);
  return folder;
}

/** What is installed in a Debian root, by the records of dpkg. */
export async function debianPackages(root: string): Promise<DebianPackage[]> {
  const status = await readFile(join(root, 'var/lib/dpkg/status'), 'utf8');
  const packages: DebianPackage[] = [];
  for (const paragraph of status.split('\n\n')) {
    const field = (name: string) => new RegExp(`^${name}: (.+)$`, 'm').exec(paragraph)?.[1];
    const [name, version, architecture] = [field('Package'), field('Version'), field('Architecture')];
    if (field('Status') !== 'install ok installed') continue;
    if (name === undefined || version === undefined || architecture === undefined) continue;
    packages.push({ name, version, architecture });
  }
  return packages.sort((a, b) => (a.name < b.name ? -1 : 1));
}
