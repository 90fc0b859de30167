import { setTimeout as sleep } from 'node:timers/promises';
import { AsterismError } from '@asterism/errors/errors';

/** sd_listen_fds(3): the first socket that systemd passes on. */
const FIRST_FD = 3;

/**
 * The socket that this process was started for.
 * @throws AsterismError ERR_NO_SOCKET
 */
export function passedSocket(env: NodeJS.ProcessEnv, pid: number): { readonly fd: number } {
  if (env.LISTEN_PID !== String(pid) || env.LISTEN_FDS !== '1')
    throw new AsterismError(
      'ERR_NO_SOCKET',
      'no socket was passed on: systemd starts this, by disk-keeper.socket',
    );
  return { fd: FIRST_FD };
}

/** Resolves when nobody has been there for a while, or the signal aborts. systemd listens on. */
export async function untilIdle(
  connections: () => number,
  idleMs: number,
  signal: AbortSignal,
  pollMs = 1000,
): Promise<void> {
  for (let last = performance.now(); performance.now() - last < idleMs; ) {
    if (signal.aborted) return;
    if (connections() > 0) last = performance.now();
    await sleep(pollMs, undefined, { signal }).catch(() => {});
  }
}
