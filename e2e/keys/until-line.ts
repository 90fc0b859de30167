import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ASTERISM } from '../cluster.ts';

const TIMEOUT_MS = 15 * 60_000;

/** Runs a command to its end; once, when it has shown a line that matches, `act` is called while it goes on. */
export async function untilLine(
  workspace: string,
  args: readonly string[],
  line: RegExp,
  act: () => Promise<void>,
): Promise<{ readonly status: number | null; readonly stderr: string }> {
  const child = spawn(ASTERISM, ['--workspace', workspace, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  const closed = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS);
  let stderr = '';
  let acting: Promise<void> | undefined;
  createInterface({ input: child.stderr }).on('line', (text) => {
    stderr += `${text}\n`;
    process.stderr.write(`${text}\n`);
    if (acting === undefined && line.test(text)) acting = act();
  });
  const status = await closed;
  clearTimeout(timer);
  if (acting === undefined) throw new Error(`the command never showed ${line}:\n${stderr.slice(-4000)}`);
  await acting;
  return { status, stderr };
}
