import { chmod, mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/**
 * Makes a file in a tree that becomes an image, in place of what is there (another name of a hard link keeps the old
 * content). Modes are said here: the umask and those of the checkout would be other ones on another machine.
 *
 * @param mode of the file; undefined for a symbolic link, which has none
 */
export async function place(
  root: string,
  path: string,
  mode: number | undefined,
  make: (to: string) => Promise<unknown>,
): Promise<void> {
  await placeFolder(root, dirname(path));
  const to = join(root, path);
  await rm(to, { recursive: true, force: true });
  await make(to);
  if (mode !== undefined) await chmod(to, mode);
}

/** Makes a folder in such a tree; one that is there stays as it is. */
export async function placeFolder(root: string, path: string): Promise<void> {
  const created = await mkdir(join(root, path), { recursive: true });
  if (created === undefined) return;
  for (let folder = join(root, path); folder.length >= created.length; folder = dirname(folder)) {
    await chmod(folder, 0o755);
  }
}
