import { createHash } from 'node:crypto';
import { mkdir, rename, rm, stat, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { runChecked } from '@asterism/runtime/program';
import type { BuildOptions } from './build-go.ts';
import { cacheFolder } from './cache.ts';

const TIMEOUT_MS = 600_000;

/**
 * The files of Debian packages and what they need, unpacked but not set up: small trees for container images.
 * @returns the folder; do not write to it
 */
export async function debianTree(packages: readonly string[], options: BuildOptions): Promise<string> {
  const id = createHash('sha256').update(JSON.stringify(packages)).digest('hex').slice(0, 16);
  const folder = cacheFolder('debian', id);
  if (await stat(folder).catch(() => undefined)) return folder;
  options.onDetail(`Debian packages ${packages.join(', ')}`);
  await mkdir(cacheFolder('debian'), { recursive: true });
  const work = `${folder}.part`;
  await rm(work, { recursive: true, force: true });
  await runChecked(
    'mmdebstrap',
    ['--quiet', '--variant=extract', '--mode=root', `--include=${packages.join(',')}`, 'bookworm', work],
    {
      timeoutMs: TIMEOUT_MS,
      signal: options.signal,
      env: { ...process.env, LC_ALL: 'C', SOURCE_DATE_EPOCH: '0' } as Record<string, string>,
    },
  );
  for (const folderName of [
    'usr/share/doc',
    'usr/share/man',
    'usr/share/locale',
    'var/lib/apt',
    'var/cache',
    'var/log',
    'usr/share/info',
    'dev',
  ]) {
    await rm(join(work, folderName), { recursive: true, force: true });
  }
  // What Debian's alternatives would set up: the nft back end of iptables.
  if (packages.includes('iptables')) {
    for (const name of [
      'iptables',
      'iptables-save',
      'iptables-restore',
      'ip6tables',
      'ip6tables-save',
      'ip6tables-restore',
    ]) {
      await rm(join(work, 'usr/sbin', name), { force: true });
      await symlink('xtables-nft-multi', join(work, 'usr/sbin', name));
    }
  }
  await rename(work, folder);
  return folder;
}
