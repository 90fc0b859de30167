import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { link, mkdir, open, rename, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { getSystemErrorMessage } from 'node:util';
import { fromUtf8 } from '@asterism/bytes/encoding';
import { syncFolder, writeFileAtomic } from '@asterism/disk/atomic-file';
import { AsterismError, ParseError } from '@asterism/errors/errors';
import { locked } from '@asterism/runtime/folder-lock';
import { type ClusterConfig, CONFIG_FILE, parseClusterConfig } from './cluster-config.ts';
import {
  MASTER_SECRET_FILE,
  type MasterSecret,
  parseMasterSecret,
  renderMasterSecret,
} from './master-secret.ts';
import { type ClusterState, parseState, renderState, STATE_FILE } from './state.ts';
import { MAX_FILE_BYTES } from './strict.ts';

/** Name of the administrator's kubeconfig in a workspace. */
export const KUBECONFIG_FILE = 'asterism-admin.conf';

/** The folder that what runs now has for itself. */
const own = new AsyncLocalStorage<string>();

/** A workspace file is there that must not be overwritten, or is missing where it is needed. */
export class WorkspaceError extends AsterismError {}

/**
 * The folder that holds one cluster's files: configuration, state, master secret, kubeconfig. All are made with
 * mode 0600, and none is overwritten unless the caller says so; but the state, which this class alone writes.
 */
export class Workspace {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  async config(): Promise<ClusterConfig> {
    const text = await this.read(CONFIG_FILE);
    if (text === undefined) {
      throw new WorkspaceError(
        'ERR_NO_CONFIG',
        `${this.path(CONFIG_FILE)} does not exist; make it with: asterism config generate local`,
      );
    }
    return parseClusterConfig(text, this.path(CONFIG_FILE));
  }

  /**
   * @returns undefined where this workspace has made no cluster yet
   * @throws ParseError (ERR_STATE_DAMAGED) that says how to get at the cluster without the file
   */
  async state(): Promise<ClusterState | undefined> {
    const path = this.path(STATE_FILE);
    try {
      const text = await this.read(STATE_FILE);
      return text === undefined ? undefined : parseState(text, path);
    } catch (error) {
      if (!(error instanceof ParseError) || error.code === 'ERR_STATE_NEWER') throw error;
      throw new ParseError(
        `${error.message}\nWhere there is no copy of the file, find its cluster with \`asterism local list\`, remove ` +
          `that with \`asterism local remove UID\`, then delete the file`,
        { code: 'ERR_STATE_DAMAGED' },
      );
    }
  }

  /** @throws WorkspaceError (ERR_NO_CLUSTER) where this workspace has made no cluster yet */
  async requireState(): Promise<ClusterState> {
    const state = await this.state();
    if (state === undefined) {
      throw new WorkspaceError(
        'ERR_NO_CLUSTER',
        `${this.folder} has no cluster (${STATE_FILE} does not exist); make one with: asterism create`,
      );
    }
    return state;
  }

  /** Replaces the state, whole or not at all. */
  async writeState(state: ClusterState): Promise<void> {
    await this.create(STATE_FILE, renderState(state), { overwrite: true });
  }

  async masterSecret(path: string = this.path(MASTER_SECRET_FILE)): Promise<MasterSecret | undefined> {
    const text = await readBounded(path);
    return text === undefined ? undefined : parseMasterSecret(text, path);
  }

  async createMasterSecret(secret: MasterSecret): Promise<void> {
    await this.create(MASTER_SECRET_FILE, renderMasterSecret(secret));
  }

  async read(name: string): Promise<string | undefined> {
    return readBounded(this.path(name));
  }

  /**
   * Writes a new file with mode 0600; it appears whole or not at all.
   * @throws WorkspaceError (ERR_EXISTS) where it is there already, unless `overwrite`
   */
  async create(name: string, text: string, options: { overwrite?: boolean } = {}): Promise<void> {
    const path = this.path(name);
    if (options.overwrite) return writing(path, () => writeFileAtomic(path, text));
    const temporary = `${path}.${randomUUID()}.tmp`;
    try {
      await writing(path, async () => {
        await writeFileAtomic(temporary, text);
        // Unlike rename, link fails where the name is taken.
        await link(temporary, path);
        await syncFolder(this.folder);
      });
    } finally {
      await rm(temporary, { force: true }).catch(() => {});
    }
  }

  /** Puts a file in the place of another one; after a crash it has one of the two names. */
  async rename(from: string, to: string): Promise<void> {
    await writing(this.path(to), async () => {
      await rename(this.path(from), this.path(to));
      await syncFolder(this.folder);
    });
  }

  async remove(name: string): Promise<void> {
    const path = this.path(name);
    await writing(path, () => rm(path, { force: true }));
  }

  /**
   * Does something that changes the cluster of this workspace, while nobody else does. Steps of it may say so again.
   * @throws AsterismError (ERR_LOCKED) another process is at work here; it is not waited for
   */
  async exclusively<T>(use: () => Promise<T>): Promise<T> {
    if (own.getStore() === this.folder) return use();
    // There must be something to lock: else one who makes the folder would not be noticed.
    let made: string | undefined;
    await writing(this.folder, async () => {
      made = await mkdir(this.folder, { recursive: true });
    });
    const { dev, ino } = await stat(this.folder);
    return locked(this.folder, 0, async () => {
      const now = await stat(this.folder).catch(() => undefined);
      if (now?.dev !== dev || now.ino !== ino)
        throw new AsterismError(
          'ERR_LOCKED',
          `${this.folder} was just removed by another process; try again`,
        );
      try {
        return await own.run(this.folder, use);
      } finally {
        // What stays empty was made for the lock only.
        for (let path = this.folder; made !== undefined && path.startsWith(made); path = dirname(path))
          await rmdir(path).catch(() => {});
      }
    });
  }
}

/** @returns undefined where there is no such file */
async function readBounded(path: string): Promise<string | undefined> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    // O_NONBLOCK: a FIFO in the place of the file must not hang us.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new WorkspaceError('ERR_READ', `${path} cannot be read: ${reasonOf(cause)}`);
  }
  try {
    const { size } = await file.stat().then((found) => {
      if (!found.isFile()) throw new WorkspaceError('ERR_READ', `${path} is no regular file`);
      return found;
    });
    if (size > MAX_FILE_BYTES) {
      throw new ParseError(`${path}: the file is larger than ${MAX_FILE_BYTES} bytes`, {
        code: 'ERR_CONFIG',
      });
    }
    const buffer = new Uint8Array(MAX_FILE_BYTES + 1);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
    return textOf(buffer.subarray(0, bytesRead), path);
  } finally {
    await file.close();
  }
}

function textOf(bytes: Uint8Array, path: string): string {
  try {
    return fromUtf8(bytes);
  } catch {
    throw new ParseError(`${path}: is not UTF-8 text`, { code: 'ERR_CONFIG' });
  }
}

/** Changes a file; a failure names it, and not the temporary file that stands in for it. */
async function writing(path: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    const { code, syscall } = cause as NodeJS.ErrnoException;
    if (code === 'EEXIST' && syscall === 'link') {
      throw new WorkspaceError(
        'ERR_EXISTS',
        `${path} exists and is not overwritten; move it away or use another workspace (--workspace)`,
      );
    }
    throw new WorkspaceError('ERR_WRITE', `${path} cannot be written: ${reasonOf(cause)}`);
  }
}

/** The system's words for an error, without the call and the paths that its message names. */
function reasonOf(error: unknown): string {
  const { code, errno, message } = error as NodeJS.ErrnoException;
  if (code === 'EACCES') return 'permission denied; run it as root, or as whoever made the folder';
  return errno === undefined ? message : getSystemErrorMessage(errno);
}
