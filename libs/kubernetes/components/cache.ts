import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { AsterismError } from '@asterism/errors/errors';
import { PROGRAM_PATH } from '@asterism/runtime/program';

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
 * Runs `use` while nobody else has the lock of a folder. The lock is the kernel's (flock on a file beside the folder):
 * however its owner ends, it is free again.
 * @throws AsterismError ERR_BUILD_LOCKED somebody else works in the folder
 */
export async function withLock<T>(folder: string, use: () => Promise<T>): Promise<T> {
  await mkdir(folder, { recursive: true });
  const path = `${folder}.lock`;
  // The program holds the lock until its input ends: when we close it, or when this process is gone.
  const held = ['sh', '-c', 'echo "$1" >"$0"; echo taken; exec cat', path, String(process.pid)];
  const holder = spawn('flock', ['--nonblock', '--conflict-exit-code', '75', path, ...held], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: { PATH: PROGRAM_PATH },
    // A Ctrl-C for this process is not one for the lock: it is held until the work has stopped.
    detached: true,
  });
  holder.stdin.on('error', () => {});
  const ended = new Promise<number | undefined>((resolve) => {
    holder.once('error', () => resolve(undefined));
    holder.once('close', (code) => resolve(code ?? undefined));
  });
  const taken = await Promise.race([once(holder.stdout, 'data').then(() => true), ended]);
  if (taken === 75) {
    const owner = (await readFile(path, 'utf8').catch(() => '')).trim();
    throw new AsterismError('ERR_BUILD_LOCKED', `process ${owner} is at work in ${folder}; wait for it`);
  }
  if (taken !== true) throw new AsterismError('ERR_BUILD_LOCKED', `${path} cannot be locked with flock`);
  try {
    return await use();
  } finally {
    holder.stdin.end();
    await ended;
  }
}
