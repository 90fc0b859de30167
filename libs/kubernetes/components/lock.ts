import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import { PROGRAM_PATH } from '@asterism/runtime/program';

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
/** Exit code of flock when somebody else has it. */
const CONFLICT = 75;

/**
 * Runs `use` while nobody else has the lock of a path, after whoever has it now. The lock is the kernel's (flock on a
 * file beside it): however its owner ends, it is free again. Do not take it twice: it would wait for itself.
 *
 * @throws AsterismError ERR_BUILD_LOCKED somebody else has had it for all the time that was given
 * @throws the signal's reason when that ends the waiting
 */
export async function withLock<T>(path: string, options: LockOptions, use: () => Promise<T>): Promise<T> {
  const { signal, onDetail, timeoutMs = DEFAULT_TIMEOUT_MS, shared = false } = options;
  signal.throwIfAborted();
  await mkdir(dirname(path), { recursive: true });
  const file = `${path}.lock`;
  const mode = shared ? ['--shared'] : [];
  let release = await take(file, [...mode, '--nonblock'], signal);
  if (release === undefined && timeoutMs > 0) {
    onDetail(`waiting for process ${await ownerOf(file)}, which is at work in ${path}`);
    release = await take(file, [...mode, '--timeout', String(timeoutMs / 1000)], signal);
  }
  if (release === undefined) {
    throw new AsterismError(
      'ERR_BUILD_LOCKED',
      `process ${await ownerOf(file)} is still at work in ${path}; wait until it has ended and try again`,
    );
  }
  try {
    return await use();
  } finally {
    await release();
  }
}

/** @returns what gives the lock back; undefined where somebody else has it */
async function take(
  file: string,
  flags: readonly string[],
  signal: AbortSignal,
): Promise<(() => Promise<void>) | undefined> {
  // The program holds the lock until its input ends: when we close it, or when this process is gone.
  const held = ['sh', '-c', 'echo "$1" >"$0"; echo taken; exec cat', file, String(process.pid)];
  const holder = spawn('flock', [...flags, '--conflict-exit-code', String(CONFLICT), file, ...held], {
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
  signal.addEventListener('abort', onAbort, { once: true });
  const taken = await Promise.race([once(holder.stdout, 'data').then(() => true), ended]);
  signal.removeEventListener('abort', onAbort);
  if (signal.aborted) {
    end(holder);
    await ended;
    signal.throwIfAborted();
  }
  if (taken === CONFLICT) return undefined;
  if (taken !== true) throw new AsterismError('ERR_BUILD_LOCKED', `${file} cannot be locked with flock`);
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

async function ownerOf(file: string): Promise<string> {
  return (await readFile(file, 'utf8').catch(() => '')).trim();
}
