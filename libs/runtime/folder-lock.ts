import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, stat } from 'node:fs/promises';
import { AsterismError } from '@asterism/errors/errors';
import { PROGRAM_PATH } from './program.ts';

/** What flock says when it has waited in vain. */
const LOCK_HELD = 1;

/**
 * Does something while no other process does something under the same folder. The lock is the kernel's (flock): it is
 * free again whatever way its owner ends, and leaves no file.
 * @param waitSeconds how long to wait for another one; 0: not at all
 * @throws AsterismError ERR_LOCKED somebody else holds it; ERR_LOCK the folder is not there
 */
export async function locked<T>(folder: string, waitSeconds: number, use: () => Promise<T>): Promise<T> {
  const holder = spawn(
    'flock',
    // Without the slash, flock would make a file where the folder has just been removed.
    ['--wait', String(waitSeconds), `${folder}/`, 'sh', '-c', 'echo locked; exec cat'],
    {
      stdio: ['pipe', 'pipe', 'ignore'],
      env: { PATH: PROGRAM_PATH },
      // A Ctrl-C for this process is not one for the lock: it is held until the work has stopped.
      detached: true,
    },
  );
  holder.on('error', () => {});
  holder.stdin.on('error', () => {});
  const ended = once(holder, 'close');
  const taken = await Promise.race([once(holder.stdout, 'data').then(() => true), ended.then(() => false)]);
  if (!taken && holder.exitCode !== LOCK_HELD) {
    throw new AsterismError('ERR_LOCK', `${folder} cannot be locked: it is gone, or flock is`);
  }
  if (!taken) {
    const owner = await ownerOf(folder);
    const who = owner === undefined ? 'another process' : `process ${owner}`;
    const since = waitSeconds === 0 ? 'is at work' : `has been at work for ${waitSeconds} s`;
    throw new AsterismError(
      'ERR_LOCKED',
      `${who} ${since} in ${folder}; wait for it or end it, then try again`,
    );
  }
  try {
    return await use();
  } finally {
    // It holds the lock until its input ends, which also happens when this process dies.
    holder.stdin.end();
    await ended;
  }
}

/** The process that has a folder's lock: who started the flock that the kernel names. Undefined where nobody can tell. */
async function ownerOf(folder: string): Promise<number | undefined> {
  const found = await stat(folder).catch(() => undefined);
  const locks = await readFile('/proc/locks', 'utf8').catch(() => '');
  // 1: FLOCK  ADVISORY  WRITE <pid> <device>:<inode> 0 EOF. Those who wait have an arrow behind the number.
  const held = new RegExp(`^\\d+: FLOCK +ADVISORY +WRITE +(\\d+) [0-9a-f:]+:${found?.ino} `, 'm').exec(locks);
  const status = await readFile(`/proc/${held?.[1]}/status`, 'utf8').catch(() => '');
  const parent = Number(/^PPid:\t(\d+)$/m.exec(status)?.[1]);
  return parent > 1 ? parent : undefined;
}
