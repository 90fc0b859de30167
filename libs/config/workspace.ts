import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { link, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fromUtf8 } from '@asterism/bytes/encoding';
import { syncFolder, writeFileAtomic } from '@asterism/disk/atomic-file';
import { AsterismError, ParseError } from '@asterism/errors/errors';
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

/** A workspace file is there that must not be overwritten, or is missing where it is needed. */
export class WorkspaceError extends AsterismError {}

/**
 * The folder that holds one cluster's files: configuration, state, master secret, kubeconfig. All are made with
 * mode 0600, and none is overwritten but the state, which this class alone writes.
 */
export class Workspace {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  async config(name: string = CONFIG_FILE): Promise<ClusterConfig> {
    const text = await this.read(name);
    if (text === undefined) {
      throw new WorkspaceError(
        'ERR_NO_CONFIG',
        `${this.path(name)} does not exist; make it with: asterism config generate local`,
      );
    }
    return parseClusterConfig(text, this.path(name));
  }

  /** @returns undefined where this workspace has made no cluster yet */
  async state(): Promise<ClusterState | undefined> {
    const text = await this.read(STATE_FILE);
    return text === undefined ? undefined : parseState(text, this.path(STATE_FILE));
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
    await writeFileAtomic(this.path(STATE_FILE), renderState(state));
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
    if (options.overwrite) {
      await writeFileAtomic(path, text);
      return;
    }
    const temporary = `${path}.${randomUUID()}.tmp`;
    try {
      await writeFileAtomic(temporary, text);
      // Unlike rename, link fails where the name is taken.
      await link(temporary, path);
      await syncFolder(this.folder);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
      throw new WorkspaceError(
        'ERR_EXISTS',
        `${path} exists and is not overwritten; move it away or use another workspace (--workspace)`,
        { cause },
      );
    } finally {
      await rm(temporary, { force: true });
    }
  }

  async remove(name: string): Promise<void> {
    await rm(this.path(name), { force: true });
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
    throw new WorkspaceError('ERR_READ', `${path} cannot be read: ${(cause as Error).message}`, { cause });
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
    return fromUtf8(buffer.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}
