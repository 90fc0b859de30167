import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readFile, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { AsterismError } from '@asterism/errors/errors';

/** `$XDG_CACHE_HOME/asterism`, or `~/.cache/asterism`. */
export function cacheFolder(...parts: string[]): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'asterism', ...parts);
}

/** Hex SHA-256 of a file's content. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return hash.digest('hex');
}

/**
 * Runs `use` while this process alone has the lock; a lock whose owner is gone is taken over.
 * @throws AsterismError ERR_BUILD_LOCKED somebody else works in the folder
 */
export async function withLock<T>(folder: string, use: () => Promise<T>): Promise<T> {
  await mkdir(folder, { recursive: true });
  const path = join(folder, '.lock');
  for (let attempt = 0; ; attempt++) {
    try {
      const file = await open(path, 'wx', 0o600);
      await file.writeFile(String(process.pid));
      await file.close();
      break;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
      const owner = Number(await readFile(path, 'utf8').catch(() => ''));
      if (owner > 0 && owner !== process.pid && isAlive(owner)) {
        throw new AsterismError(
          'ERR_BUILD_LOCKED',
          `process ${owner} is building in ${folder}; wait for it`,
          { cause },
        );
      }
      if (attempt > 2)
        throw new AsterismError('ERR_BUILD_LOCKED', `${path} cannot be taken; remove it`, { cause });
      await rm(path, { force: true });
    }
  }
  try {
    return await use();
  } finally {
    await rm(path, { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
