import { rm } from 'node:fs/promises';
import { runChecked } from '@asterism/runtime/program';
import { EPOCH } from './debian.ts';

const TIMEOUT_MS = 15 * 60_000;

/** Packs a tree as squashfs: sorted, without times and owners of the build, so that the same tree gives the same bytes. */
export async function packSquashfs(root: string, to: string, signal: AbortSignal): Promise<void> {
  await rm(to, { force: true });
  await runChecked(
    'mksquashfs',
    [
      ...[root, to, '-noappend', '-quiet', '-no-progress', '-no-xattrs', '-all-root'],
      ...['-comp', 'zstd', '-Xcompression-level', '1', '-processors', '2'],
      ...['-mkfs-time', EPOCH, '-all-time', EPOCH],
    ],
    { timeoutMs: TIMEOUT_MS, signal },
  );
}
