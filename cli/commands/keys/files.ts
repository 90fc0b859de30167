import { basename, dirname, resolve } from 'node:path';
import { Workspace, WorkspaceError } from '@asterism/config/workspace';

/** Text of a file that must be there. @throws WorkspaceError (ERR_READ) */
export async function readText(file: string): Promise<string> {
  const text = await new Workspace(dirname(file)).read(basename(file));
  if (text === undefined) throw new WorkspaceError('ERR_READ', `${file} does not exist`);
  return text;
}

/**
 * Writes a new file with mode 0600; it appears whole or not at all.
 * @returns its absolute path
 * @throws WorkspaceError (ERR_EXISTS, ERR_WRITE)
 */
export async function writeNew(file: string, text: string): Promise<string> {
  const path = resolve(file);
  await new Workspace(dirname(path)).create(basename(path), text);
  return path;
}
