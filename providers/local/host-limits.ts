import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import { CLUSTERS } from './cluster.ts';

// systemd, containerd and the kubelet of every node watch files, all as the host's root, who may have 128 watchers by
// default: three or four nodes. It is the one setting of the host that is changed; the last cluster that goes puts it back.
const LIMIT = '/proc/sys/fs/inotify/max_user_instances';
const SAVED = join(CLUSTERS, 'max_user_instances.before');
const WANTED = 8192;

/** @throws AsterismError ERR_HOST the limit is too low and cannot be raised */
export async function raiseHostLimits(): Promise<void> {
  const present = Number(await readFile(LIMIT, 'utf8'));
  if (present >= WANTED) return;
  await mkdir(CLUSTERS, { recursive: true, mode: 0o700 });
  // The first value stays: a second one would be our own.
  await writeFile(SAVED, String(present), { flag: 'wx' }).catch(() => {});
  try {
    await writeFile(LIMIT, String(WANTED));
  } catch (cause) {
    throw new AsterismError(
      'ERR_HOST',
      `nodes need more file watchers than this machine allows; run: sysctl fs.inotify.max_user_instances=${WANTED}`,
      { cause },
    );
  }
}

/** Puts the host's own limit back. For when there is no cluster any more. */
export async function restoreHostLimits(): Promise<void> {
  const before = Number(await readFile(SAVED, 'utf8').catch(() => '0'));
  if (before > 0) await writeFile(LIMIT, String(before)).catch(() => {});
  await rm(SAVED, { force: true });
}
