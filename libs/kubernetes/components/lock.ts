import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import { flockOwner, takeFlock } from '@asterism/runtime/flock';

export interface LockOptions {
  readonly signal: AbortSignal;
  /** Told once who is waited for. */
  readonly onDetail: (text: string) => void;
  /** How long another may keep it. Default: an hour, more than the longest build takes. 0: it is not waited for. */
  readonly timeoutMs?: number;
  /** Others may have it at the same time who want it shared, too. */
  readonly shared?: boolean;
}

const DEFAULT_TIMEOUT_MS = 60 * 60_000;

/**
 * Runs `use` while nobody else has the lock of a path, after whoever has it now. The lock is that of a
 * file beside it. Do not take it twice: it would wait for itself.
 *
 * @throws AsterismError ERR_BUILD_LOCKED somebody else has had it for all the time that was given
 * @throws the signal's reason when that ends the waiting
 */
export async function withLock<T>(path: string, options: LockOptions, use: () => Promise<T>): Promise<T> {
  const { signal, onDetail, timeoutMs = DEFAULT_TIMEOUT_MS, shared = false } = options;
  await mkdir(dirname(path), { recursive: true });
  const file = `${path}.lock`;
  let release = await takeFlock(file, { signal, shared, waitMs: 0 });
  if (release === undefined && timeoutMs > 0) {
    onDetail(`waiting for ${await flockOwner(file)}, which is at work in ${path}`);
    release = await takeFlock(file, { signal, shared, waitMs: timeoutMs });
  }
  if (release === undefined) {
    throw new AsterismError(
      'ERR_BUILD_LOCKED',
      `${await flockOwner(file)} is still at work in ${path}; wait until it has ended and try again`,
    );
  }
  try {
    return await use();
  } finally {
    await release();
  }
}
