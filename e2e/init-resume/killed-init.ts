import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ASTERISM, asterism, must } from '../cluster.ts';

const TIMEOUT_MS = 600_000;

/** An `init` under way. */
export interface RunningInit {
  signal(name: 'SIGKILL' | 'SIGSTOP'): void;
}

/**
 * Runs `init`, and calls back at each phase that is reported as done and is not among `seen`; adds it to them. One call
 * at a time: what is reported meanwhile belongs to the time before it (a kill takes a while) and is passed over.
 * @returns the command's exit code; null where it was killed
 */
export async function initUntil(
  workspace: string,
  seen: Set<string>,
  onPhase: (phase: string, init: RunningInit) => Promise<void>,
): Promise<number | null> {
  const child = spawn(ASTERISM, ['--workspace', workspace, 'init'], { stdio: ['ignore', 'ignore', 'pipe'] });
  const closed = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS);
  let told = '';
  let acting: Promise<void> | undefined;
  let failed: unknown;
  createInterface({ input: child.stderr }).on('line', (line) => {
    told = line;
    const phase = /^\s*init ([a-z-]+):/.exec(line)?.[1];
    if (phase === undefined || seen.has(phase) || acting !== undefined) return;
    seen.add(phase);
    acting = onPhase(phase, { signal: (name) => child.kill(name) })
      .catch((error: unknown) => {
        failed = error;
        child.kill('SIGKILL');
      })
      .finally(() => {
        acting = undefined;
      });
  });
  const status = await closed;
  await acting;
  clearTimeout(timer);
  if (failed !== undefined) throw failed;
  if (status !== 0) console.log(`# init ended with ${status ?? 'SIGKILL'}: ${told}`);
  return status;
}

/** A command in a node, which must succeed. */
export const inNode = (workspace: string, node: string, ...command: string[]): Promise<string> =>
  must(asterism(['local', 'exec', node, '--', ...command], { workspace, timeoutMs: 60_000 }));

export const killBootstrapper = (workspace: string, node: string): Promise<string> =>
  inNode(workspace, node, 'systemctl', 'kill', '--signal=SIGKILL', 'bootstrapper.service');

export const INIT_JOURNAL = '/run/state/asterism/init-journal.json';
