import { readFile } from 'node:fs/promises';

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
  if (await isProcess(record.pid, record.started)) {
    try {
      process.kill(record.pid, name);
    } catch {
      // It ended in between.
    }
  }
}
