import { createHash } from 'node:crypto';
import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildOptions } from '@asterism/kubernetes/components/build-go';
import { cacheFolder, moveTreeIntoPlace } from '@asterism/kubernetes/components/cache';
import { debianPackages, idOfPackages, makeDebian } from '@asterism/kubernetes/components/debian-packages';

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

/** Start of the name of a folder in which the Debian part is being made. */
export const DEBIAN_WORK = '.debian-';

/** The Debian part of a root file system. */
export interface DebianRoot {
  /** Not to be written to. */
  readonly folder: string;
  /** Another one with other packages, other versions of them, or made in another way. */
  readonly id: string;
}

/**
 * The Debian part of the root file system, made once per list of packages, as Debian has them that day: it takes longest
 * and changes least. The same packages give the same bytes. Only for who holds the lock of the images.
 *
 * @param options.refresh make it anew, of the packages as they are today
 */
export async function debianRoot(
  options: BuildOptions & { readonly refresh?: boolean },
): Promise<DebianRoot> {
  const purge = (force: string, names: readonly string[]) =>
    `--customize-hook=chroot "$1" dpkg --purge --force-remove-essential ${force} ${names.join(' ')}`;
  const args = [
    '--variant=minbase',
    '--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr',
    `--include=${PACKAGES.join(',')}`,
    ...LEFT_OUT.map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`),
    ...INSTALLERS.map((names) => purge('--force-depends', names)),
    purge('', THEIR_LIBRARIES),
  ];
  const recipe = createHash('sha256').update(JSON.stringify([args, REMOVED, EMPTIED, EPOCH]));
  const made = recipe.digest('hex').slice(0, 16);
  const folder = cacheFolder('image', `debian-${made}`);
  if (options.refresh || !(await stat(folder).catch(() => undefined))) await make(args, folder, options);
  return { folder, id: `${made}-${idOfPackages(await debianPackages(folder))}` };
}

async function make(
  args: readonly string[],
  folder: string,
  { signal, onDetail }: BuildOptions,
): Promise<void> {
  onDetail('Debian packages of the node');
  const work = await mkdtemp(cacheFolder('image', DEBIAN_WORK));
  try {
    // apt downloads as a user of its own.
    await chmod(work, 0o755);
    const root = await makeDebian(args, work, { epoch: EPOCH, timeoutMs: TIMEOUT_MS, signal });
    for (const name of REMOVED) await rm(join(root, name), { recursive: true, force: true });
    for (const name of EMPTIED) {
      await rm(join(root, name), { force: true });
      await writeFile(join(root, name), '');
      await chmod(join(root, name), 0o644);
    }
    await moveTreeIntoPlace(root, folder, signal);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
