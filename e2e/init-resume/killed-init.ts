import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ASTERISM, asterism, must } from '../cluster.ts';

const TIMEOUT_MS = 600_000;

/** An `init` under way. */
export interface RunningInit {
  signal(name: 'SIGKILL' | 'SIGSTOP'): void;
}

/**
 * Runs `init`, and calls back at each phase that is reported as done and is not among `seen`; adds it to them.
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
  for await (const line of createInterface({ input: child.stderr })) {
    told = line;
    const phase = /^\s*init ([a-z-]+):/.exec(line)?.[1];
    if (phase === undefined || seen.has(phase)) continue;
    seen.add(phase);
    // One at a time: what is said while the last action is under way was done before it.
    await acting;
    acting = onPhase(phase, { signal: (name) => child.kill(name) });
  }
  await acting;
  const status = await closed;
  clearTimeout(timer);
  if (status !== 0) console.log(`# init ended with ${status ?? 'SIGKILL'}: ${told}`);
  return status;
}

/** A command in a node, which must succeed. */
export const inNode = (workspace: string, node: string, ...command: string[]): Promise<string> =>
  must(asterism(['local', 'exec', node, '--', ...command], { workspace, timeoutMs: 60_000 }));

export const killBootstrapper = (workspace: string, node: string): Promise<string> =>
  inNode(workspace, node, 'systemctl', 'kill', '--signal=SIGKILL', 'bootstrapper.service');

export const INIT_JOURNAL = '/run/state/asterism/init-journal.json';
