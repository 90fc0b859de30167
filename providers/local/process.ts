import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { PROGRAM_PATH } from '@asterism/runtime/program';

/** Whether a process is there and is the one that was started: pids are given out again. */
export async function isProcess(pid: number, started: string): Promise<boolean> {
  return (await startTimeOf(pid)) === started;
}

/** The kernel's start time of a process, which with its pid names it; undefined when it is gone or a zombie. */
export async function startTimeOf(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' ? undefined : fields[19];
}

export interface ProcessRecord {
  readonly pid: number;
  readonly started: string;
}

export async function readRecord(path: string): Promise<ProcessRecord | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const [pid, started] = text.trim().split(' ');
  const record = { pid: Number(pid), started: started ?? '' };
  return record.pid > 1 && (await isProcess(record.pid, record.started)) ? record : undefined;
}

/** Waits until a process is gone. @returns false when it is still there after `timeoutMs` */
export async function gone(record: ProcessRecord, timeoutMs: number): Promise<boolean> {
  const end = Date.now() + timeoutMs;
  while (await isProcess(record.pid, record.started)) {
    if (Date.now() > end) return false;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  return true;
}

/** Signals a process that was recorded, if it is still that one. */
export async function signal(record: ProcessRecord, name: NodeJS.Signals | number): Promise<void> {
  if (!(await isProcess(record.pid, record.started))) return;
  try {
    process.kill(record.pid, name);
  } catch {
    // It ended in between.
  }
}

/** Kills processes and waits until none of them is left. */
export async function killAll(pids: readonly number[]): Promise<void> {
  const records: ProcessRecord[] = [];
  for (const pid of pids) {
    const started = await startTimeOf(pid);
    if (started !== undefined) records.push({ pid, started });
  }
  for (const record of records) await signal(record, 'SIGKILL');
  for (const record of records) await gone(record, 5000);
}

// biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell that fills it in
const ENTER = 'n=$1; shift; for file in "${@:1:n}"; do echo 0 > "$file"; done; shift "$n"; exec "$@"';

/** Arguments of a program that first enters cgroups by itself, so that nothing of it was ever outside of them. */
export function within(groups: readonly string[], argv: readonly string[]): string[] {
  return ['bash', '-ec', ENTER, 'bash', String(groups.length), ...groups, ...argv];
}

/** Starts a process that outlives this one. Its output goes to the end of a file that only root reads. */
export function launch(argv: readonly string[], log: string): ChildProcess {
  const output = openSync(log, 'a', 0o600);
  try {
    const child = spawn(argv[0]!, argv.slice(1), {
      stdio: ['ignore', output, output],
      detached: true,
      cwd: '/',
      env: { PATH: PROGRAM_PATH, LC_ALL: 'C' },
    });
    // Its absence is noticed by whoever waits for what it should bring.
    child.on('error', () => {});
    child.unref();
    return child;
  } finally {
    closeSync(output);
  }
}

export async function writeRecord(path: string, pid: number): Promise<void> {
  await writeFile(path, `${pid} ${await startTimeOf(pid)}`, { mode: 0o600 });
}
