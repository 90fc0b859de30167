import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, stat } from 'node:fs/promises';
import { AsterismError } from '@asterism/errors/errors';
import { PROGRAM_PATH } from './program.ts';

export interface FlockOptions {
  /** How long another may keep it. 0: it is not waited for. */
  readonly waitMs: number;
  /** Others may have it at the same time who want it shared, too. */
  readonly shared?: boolean;
  /** Ends the waiting. */
  readonly signal?: AbortSignal;
}

/** Exit code of flock when somebody else has it. */
const CONFLICT = 75;

/**
 * Takes the kernel's lock (flock) of a file, which is made, or of a folder whose name ends with a slash, which is not.
 * However its owner ends, it is free again.
 *
 * @returns what gives it back; undefined where somebody else has had it for all that time
 * @throws AsterismError ERR_LOCK there is no such folder
 * @throws the signal's reason
 */
export async function takeFlock(
  path: string,
  options: FlockOptions,
): Promise<(() => Promise<void>) | undefined> {
  const { waitMs, shared = false, signal } = options;
  signal?.throwIfAborted();
  const flags = ['--wait', String(waitMs / 1000), '--conflict-exit-code', String(CONFLICT)];
  if (shared) flags.push('--shared');
  // The program holds the lock until its input ends: when we close it, or when this process is gone.
  const holder = spawn('flock', [...flags, path, 'sh', '-c', 'echo taken; exec cat'], {
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
  const onAbort = () => end(holder);
  signal?.addEventListener('abort', onAbort, { once: true });
  const taken = await Promise.race([once(holder.stdout, 'data').then(() => true), ended]);
  signal?.removeEventListener('abort', onAbort);
  if (signal?.aborted) {
    end(holder);
    await ended;
    signal.throwIfAborted();
  }
  if (taken === CONFLICT) return undefined;
  if (taken !== true)
    throw new AsterismError('ERR_LOCK', `${path} cannot be locked: it is gone, or the program flock is`);
  return async () => {
    holder.stdin.end();
    await ended;
  };
}

function end(holder: ChildProcess): void {
  if (holder.pid === undefined || holder.exitCode !== null || holder.signalCode !== null) return;
  try {
    process.kill(-holder.pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

/** Who has the lock of a path, for a person: the process that started the flock which the kernel names. */
export async function flockOwner(path: string): Promise<string> {
  const found = await stat(path).catch(() => undefined);
  const locks = await readFile('/proc/locks', 'utf8').catch(() => '');
  // 1: FLOCK  ADVISORY  WRITE <pid> <device>:<inode> 0 EOF. Those who wait have an arrow behind the number.
  const line = new RegExp(`^\\d+: FLOCK +ADVISORY +(?:WRITE|READ) +(\\d+) [0-9a-f:]+:${found?.ino} `, 'm');
  const status = await readFile(`/proc/${line.exec(locks)?.[1]}/status`, 'utf8').catch(() => '');
  const parent = Number(/^PPid:\t(\d+)$/m.exec(status)?.[1]);
  return parent > 1 ? `process ${parent}` : 'another process';
}
