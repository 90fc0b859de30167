import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { AsterismError } from '@asterism/errors/errors';
import { PROGRAM_PATH } from '@asterism/runtime/program';

const WAIT_SECONDS = 120;
/** What flock says when it has waited in vain. */
const LOCK_HELD = 1;

/**
 * Does something while no other process does something under the same path. The lock is the kernel's (flock on a
 * folder): it is free again whatever way its owner ends, and leaves no file.
 * @throws AsterismError ERR_LOCKED somebody else held it for two minutes; ERR_LOCK the folder is not there
 */
export async function locked<T>(folder: string, use: () => Promise<T>): Promise<T> {
  const holder = spawn(
    'flock',
    // Without the slash, flock would make a file where the folder has just been removed.
    ['--wait', String(WAIT_SECONDS), `${folder}/`, 'sh', '-c', 'echo locked; exec cat'],
    { stdio: ['pipe', 'pipe', 'ignore'], env: { PATH: PROGRAM_PATH }, detached: true },
  );
  holder.on('error', () => {});
  holder.stdin.on('error', () => {});
  const ended = once(holder, 'close');
  const taken = await Promise.race([once(holder.stdout, 'data').then(() => true), ended.then(() => false)]);
  if (!taken && holder.exitCode !== LOCK_HELD) {
    throw new AsterismError('ERR_LOCK', `${folder} cannot be locked: it is gone, or flock is`);
  }
  if (!taken) {
    throw new AsterismError(
      'ERR_LOCKED',
      `another command has been at work in ${folder} for ${WAIT_SECONDS} s; wait for it or end it, then try again`,
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
