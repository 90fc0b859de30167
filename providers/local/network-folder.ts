import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { RUNTIME } from './cluster.ts';
import { tryHost } from './host.ts';

// The first `ip netns add` since the machine was started makes a folder and mounts it on itself, and nothing ever takes
// them away. Where that was ours, we do. The note is gone after a reboot of the host, as the folder is.
const FOLDER = '/run/netns';
const NOTE = join(RUNTIME, 'netns.made');

/** Notes what of the folder of network namespaces is not there yet. To be called before it is made. */
export async function noteNetworkFolder(): Promise<void> {
  const mounts = await readFile('/proc/self/mounts', 'utf8');
  if (mounts.includes(` ${FOLDER} `)) return;
  await mkdir(RUNTIME, { recursive: true, mode: 0o700 });
  // The first note stays: a second one would take our own folder for somebody else's.
  await writeFile(NOTE, existsSync(FOLDER) ? 'mount' : 'folder', { flag: 'wx' }).catch(() => {});
}

/** Takes away what was noted, unless others have network namespaces there by now. */
export async function removeNetworkFolder(): Promise<void> {
  const made = await readFile(NOTE, 'utf8').catch(() => undefined);
  if (made === undefined) return;
  const left = await readdir(FOLDER).catch(() => []);
  // Also without looking, the kernel would not unmount what has namespaces mounted in it.
  if (left.length === 0 && (await tryHost('umount', FOLDER)) && made === 'folder')
    await rmdir(FOLDER).catch(() => {});
  await rm(NOTE);
}
