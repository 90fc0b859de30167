import { createHash } from 'node:crypto';
import { chmod, mkdtemp, readdir, rm, stat, symlink, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildOptions } from './build-go.ts';
import { cacheFolder, moveTreeIntoPlace } from './cache.ts';
import { type DebianPackage, debianPackages, makeDebian } from './debian-packages.ts';
import { withLock } from './lock.ts';

const TIMEOUT_MS = 600_000;
/** How long a tree is kept that nobody asks for. */
const UNUSED_MS = 30 * 24 * 3_600_000;
/** Nothing runs the packages' scripts, so nothing writes down what is there: scanners of images look for it. */
const RECORD = `--extract-hook=for deb in "$1"/var/cache/apt/archives/*.deb; do
  dpkg-deb --field "$deb" && echo "Status: install ok installed" && echo || exit 1
done >"$1/var/lib/dpkg/status"`;
const REMOVED = [
  'etc/apt',
  'usr/share/doc',
  'usr/share/man',
  'usr/share/locale',
  'var/lib/apt',
  'var/cache',
  'var/log',
  'usr/share/info',
  'dev',
];
const IPTABLES = ['iptables', 'ip6tables'].flatMap((name) => [name, `${name}-save`, `${name}-restore`]);

/** The files of Debian packages. Not to be written to. */
export interface DebianTree {
  readonly folder: string;
  readonly packages: readonly DebianPackage[];
}

/**
 * Runs `use` with the files of Debian packages and what they need, unpacked but not set up: small trees for container
 * images. Made once, as Debian has them that day; `refresh` makes it anew. Nobody changes it while `use` runs.
 */
export async function useDebianTree<T>(
  packages: readonly string[],
  options: BuildOptions & { readonly refresh?: boolean },
  use: (tree: DebianTree) => Promise<T>,
): Promise<T> {
  const recipe = JSON.stringify([packages, RECORD, REMOVED]);
  const id = createHash('sha256').update(recipe).digest('hex').slice(0, 16);
  const folder = cacheFolder('debian', id);
  return withLock(folder, options, async () => {
    await sweep(cacheFolder('debian'), id);
    if (options.refresh || !(await stat(folder).catch(() => undefined)))
      await make(packages, folder, options);
    await utimes(folder, new Date(), new Date());
    return use({ folder, packages: await debianPackages(folder) });
  });
}

async function make(packages: readonly string[], folder: string, options: BuildOptions): Promise<void> {
  const { signal, onDetail } = options;
  onDetail(`Debian packages ${packages.join(', ')}`);
  const work = await mkdtemp(`${folder}.work-`);
  try {
    // apt downloads as a user of its own.
    await chmod(work, 0o755);
    const args = ['--variant=extract', `--include=${packages.join(',')}`, RECORD];
    const root = await makeDebian(args, work, { epoch: '0', timeoutMs: TIMEOUT_MS, signal });
    for (const name of REMOVED) await rm(join(root, name), { recursive: true, force: true });
    // What Debian's alternatives would set up: the nft back end of iptables.
    for (const name of packages.includes('iptables') ? IPTABLES : []) {
      await rm(join(root, 'usr/sbin', name), { force: true });
      await symlink('xtables-nft-multi', join(root, 'usr/sbin', name));
    }
    await debianPackages(root);
    await moveTreeIntoPlace(root, folder, signal);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Removes what a killed run left of this tree, and trees of lists that nothing asks for any more. */
async function sweep(parent: string, id: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const path = join(parent, name);
    const usedMs = (await stat(path).catch(() => undefined))?.mtimeMs ?? Date.now();
    const unused = /^[0-9a-f]{16}$/.test(name) && name !== id && Date.now() - usedMs > UNUSED_MS;
    if (name.startsWith(`${id}.work-`) || unused) await rm(path, { recursive: true, force: true });
  }
}
