import { mkdir, mkdtemp, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { cacheFolder } from '@asterism/kubernetes/components/cache';
import { withLock } from '@asterism/kubernetes/components/lock';
import { runChecked } from '@asterism/runtime/program';

/** Runs a program of the installation to its end. @returns what it says */
export type InstallRun = (file: string, ...args: string[]) => Promise<string>;

export interface Installation {
  /** A counterpart, as the folder in the cache is called. */
  readonly name: string;
  /** Tells this content from others: SHA-256 of what pins it, in hexadecimal. */
  readonly digest: string;
  /** What is run, as a path in the installed folder. */
  readonly program: string;
  readonly timeoutMs: number;
  /**
   * Puts everything together in an empty folder.
   * @returns the folder in it that is to be the installed one
   */
  fill(work: string, run: InstallRun): Promise<string>;
}

/**
 * A counterpart in the user's cache, installed on first use: once, whole or not at all, however many ask.
 * @returns the program, or the reason to skip: it cannot be installed. Under continuous integration that is an error.
 */
export async function installed(what: Installation): Promise<{ program: string } | { skip: string }> {
  const { name, digest, timeoutMs } = what;
  const folder = cacheFolder('counterparts', name, digest.slice(0, 16));
  const program = join(folder, what.program);
  const there = async () => (await stat(program).catch(() => undefined)) !== undefined;
  if (await there()) return { program };
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    await withLock(folder, { signal, onDetail: () => {} }, async () => {
      if (!(await there())) await install(folder, what, signal);
    });
    return { program };
  } catch (error) {
    if (process.env.CI !== undefined) throw error;
    return {
      skip: `NOT TESTED against ${name}: it cannot be installed: ${(error as Error).message.slice(0, 200)}`,
    };
  }
}

async function install(
  folder: string,
  { fill, timeoutMs }: Installation,
  signal: AbortSignal,
): Promise<void> {
  await mkdir(dirname(folder), { recursive: true });
  const work = await mkdtemp(join(dirname(folder), '.install-'));
  const env = { ...(process.env as Record<string, string>) };
  try {
    const filled = await fill(work, (file, ...args) => runChecked(file, args, { timeoutMs, signal, env }));
    // What is left of one whose program was removed is in the way.
    await rm(folder, { recursive: true, force: true });
    await rename(filled, folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
