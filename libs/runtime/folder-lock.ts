import { AsterismError } from '@asterism/errors/errors';
import { flockOwner, takeFlock } from './flock.ts';

/**
 * Does something while no other process does something under the same folder. The lock leaves no file.
 * @param waitSeconds how long to wait for another one; 0: not at all
 * @throws AsterismError ERR_LOCKED somebody else holds it; ERR_LOCK the folder is not there
 */
export async function locked<T>(folder: string, waitSeconds: number, use: () => Promise<T>): Promise<T> {
  // Without the slash, flock would make a file where the folder has just been removed.
  const release = await takeFlock(`${folder}/`, { waitMs: waitSeconds * 1000 });
  if (release === undefined) {
    const since = waitSeconds === 0 ? 'is at work' : `has been at work for ${waitSeconds} s`;
    throw new AsterismError(
      'ERR_LOCKED',
      `${await flockOwner(folder)} ${since} in ${folder}; wait for it or end it, then try again`,
    );
  }
  try {
    return await use();
  } finally {
    await release();
  }
}
