import { hash, randomUUID } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  fsync as fsyncCallback,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { chmod, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { AsterismError } from '@asterism/errors/errors';
import { takeFlock } from '@asterism/runtime/flock';
import { checkObject } from '../../checks.ts';
import { KmsError, KmsUnavailableError } from '../../errors.ts';
import { type DekStore, MAX_OBJECT_BYTES, OBJECT_NAME, type StoredObject } from '../../store.ts';

// A kilobyte of the page cache takes 10 microseconds, and a multiple of it by way of other threads. What waits for the
// disk is left to them.
const fsync = promisify(fsyncCallback);

const LOCK_MS = 10_000;
const LINGER_MS = 50;
/** After so long others have their turn. */
const MAX_HELD_MS = 1000;

/**
 * Wrapped DEKs as files of a folder, each named by its id: for a machine before its cluster is there, and for copies.
 * Several processes may have it open. A file is there whole and on the disk, or not at all. (Names are listed all at
 * once: a folder has no pages.)
 *
 * @param path made where it is not there, mode 0700
 * @throws KmsError | KmsUnavailableError
 */
export async function openFolderStore(path: string): Promise<DekStore> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    await chmod(path, 0o700);
  } catch (error) {
    throw failure(path, error);
  }
  return new FolderStore(path);
}

class FolderStore implements DekStore {
  readonly #path: string;
  readonly #changes: Changes;
  readonly #syncs: Syncs;

  constructor(path: string) {
    this.#path = path;
    this.#changes = new Changes(path);
    this.#syncs = new Syncs(path);
  }

  async get(name: string, signal?: AbortSignal): Promise<StoredObject | undefined> {
    checkObject(name);
    signal?.throwIfAborted();
    try {
      const bytes = readSmallFile(join(this.#path, name));
      if (bytes === undefined)
        throw new KmsError('ERR_STORE_ANSWER', `the file ${name} in ${this.#path} is no wrapped key`);
      return { bytes, version: hash('sha256', bytes, 'hex') };
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw failure(this.#path, error);
    }
  }

  async create(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<'created' | 'exists'> {
    checkObject(name, bytes);
    signal?.throwIfAborted();
    try {
      return await this.#written(bytes, async (temporary) => {
        const outcome = linked(temporary, join(this.#path, name)) ? 'created' : 'exists';
        // Also what another has linked is to be there after a power cut: the caller will rely on it.
        await this.#syncs.next();
        return outcome;
      });
    } catch (error) {
      throw failure(this.#path, error);
    }
  }

  async replace(
    name: string,
    bytes: Uint8Array,
    version: string,
    signal?: AbortSignal,
  ): Promise<'replaced' | 'changed'> {
    checkObject(name, bytes);
    signal?.throwIfAborted();
    try {
      return await this.#written(bytes, async (temporary) => {
        const outcome = await this.#changes.take(async () => {
          if ((await this.get(name, signal))?.version !== version) return 'changed';
          renameSync(temporary, join(this.#path, name));
          return 'replaced';
        });
        if (outcome === 'replaced') await this.#syncs.next();
        return outcome;
      });
    } catch (error) {
      throw failure(this.#path, error);
    }
  }

  async *list(signal?: AbortSignal): AsyncIterable<string> {
    signal?.throwIfAborted();
    const names = await readdir(this.#path).catch((error) => {
      throw failure(this.#path, error);
    });
    for (const name of names) if (OBJECT_NAME.test(name)) yield name;
  }

  async remove(name: string, version: string, signal?: AbortSignal): Promise<'removed' | 'changed'> {
    checkObject(name);
    signal?.throwIfAborted();
    try {
      return await this.#changes.take(async () => {
        const found = await this.get(name, signal);
        if (found !== undefined && found.version !== version) return 'changed';
        rmSync(join(this.#path, name), { force: true });
        await this.#syncs.next();
        return 'removed';
      });
    } catch (error) {
      throw failure(this.#path, error);
    }
  }

  async close(): Promise<void> {
    await this.#changes.release();
  }

  /** Does something with a new file that has these bytes on the disk. Its name is none of a key. */
  async #written<T>(bytes: Uint8Array, use: (temporary: string) => Promise<T>): Promise<T> {
    const temporary = join(this.#path, `.${randomUUID()}.tmp`);
    try {
      const file = openSync(temporary, 'wx', 0o600);
      try {
        writeFileSync(file, bytes);
        await fsync(file);
      } finally {
        closeSync(file);
      }
      return await use(temporary);
    } finally {
      // After a rename there is none.
      rmSync(temporary, { force: true });
    }
  }
}

/** Names that were changed get to the disk: those of all who wait at the same time, by one exchange with it. */
class Syncs {
  readonly #path: string;
  #running: Promise<unknown> = Promise.resolve();
  #next: Promise<void> | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** One that has begun may have missed what the caller changed. */
  next(): Promise<void> {
    if (this.#next === undefined) {
      this.#next = this.#running.then(() => {
        this.#next = undefined;
        return this.#sync();
      });
      this.#running = this.#next.catch(() => {});
    }
    return this.#next;
  }

  async #sync(): Promise<void> {
    const folder = openSync(this.#path, 'r');
    try {
      await fsync(folder);
    } finally {
      closeSync(folder);
    }
  }
}

/** What compares a version and then writes: one after the other, of all processes. */
class Changes {
  readonly #path: string;
  #last: Promise<unknown> = Promise.resolve();
  #lock: { readonly release: () => Promise<void>; readonly since: number } | undefined;
  #idle: NodeJS.Timeout | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  take<T>(change: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(async () => {
      clearTimeout(this.#idle);
      try {
        await this.#hold();
        return await change();
      } finally {
        this.#idle = setTimeout(() => this.release(), LINGER_MS);
      }
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** The lock is kept between changes that follow each other: taking it starts a program. */
  async #hold(): Promise<void> {
    if (this.#lock !== undefined && performance.now() - this.#lock.since > MAX_HELD_MS) await this.#release();
    if (this.#lock !== undefined) return;
    const release = await takeFlock(`${this.#path}/`, { waitMs: LOCK_MS });
    if (release === undefined)
      throw new KmsUnavailableError(
        'ERR_STORE_UNAVAILABLE',
        `another process keeps changing ${this.#path}: try again later`,
      );
    this.#lock = { release, since: performance.now() };
  }

  /** After the changes that wait. */
  async release(): Promise<void> {
    this.#last = this.#last.then(async () => {
      clearTimeout(this.#idle);
      await this.#release();
    });
    await this.#last;
  }

  async #release(): Promise<void> {
    const lock = this.#lock;
    this.#lock = undefined;
    await lock?.release();
  }
}

/** @returns false where there is such a file */
function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
}

/** @returns undefined where it is no file, or larger than a wrapped key */
function readSmallFile(path: string): Uint8Array | undefined {
  // Without O_NONBLOCK, opening a pipe would wait for its other end.
  const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const about = fstatSync(file);
    if (!about.isFile() || about.size > MAX_OBJECT_BYTES) return undefined;
    return new Uint8Array(readFileSync(file));
  } finally {
    closeSync(file);
  }
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown } | undefined)?.code;
}

function failure(path: string, error: unknown): unknown {
  const options = { cause: error };
  if (error instanceof AsterismError && error.code !== 'ERR_LOCK') return error;
  switch (codeOf(error)) {
    case 'EEXIST':
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ERR_LOCK':
      return new KmsError('ERR_STORE_NOT_FOUND', `there is no folder ${path} for wrapped keys`, options);
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new KmsError(
        'ERR_STORE_DENIED',
        `wrapped keys cannot be kept in ${path}: see its rights`,
        options,
      );
    case 'ELOOP':
      return new KmsError('ERR_STORE_ANSWER', `a wrapped key in ${path} is a symbolic link`, options);
    case 'ENOSPC':
    case 'EDQUOT':
      return new KmsUnavailableError('ERR_STORE_UNAVAILABLE', `the disk of ${path} is full`, options);
    case 'EIO':
    case 'EMFILE':
    case 'ENFILE':
      return new KmsUnavailableError('ERR_STORE_UNAVAILABLE', `${path} cannot be read or written`, options);
    default:
      return error;
  }
}
