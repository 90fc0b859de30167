import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UnreachableError } from '@asterism/errors/errors';
import { clusterFolder, type LocalCluster } from './cluster.ts';
import { fabricName } from './network.ts';
import { gone, readRecord, signal, startTimeOf } from './process.ts';

const recordOf = (uid: string): string => join(clusterFolder(uid), 'supervisor.pid');

/** Starts the process that serves metadata, load balancer and mirror, unless it runs. */
export async function startSupervisor(cluster: LocalCluster): Promise<void> {
  const { uid } = cluster;
  if ((await readRecord(recordOf(uid))) !== undefined) return;
  const path = join(clusterFolder(uid), 'supervisor.log');
  await rm(path, { force: true });
  const log = openSync(path, 'a', 0o600);
  const child = spawn(
    'nsenter',
    [
      `--net=/run/netns/${fabricName(uid)}`,
      process.execPath,
      join(import.meta.dirname, 'supervisor-main.ts'),
      uid,
    ],
    {
      stdio: ['ignore', log, log],
      detached: true,
      cwd: '/',
    },
  );
  closeSync(log);
  child.unref();
  const started = await startTimeOf(child.pid!);
  await writeFile(recordOf(uid), `${child.pid} ${started}`);
  const end = Date.now() + 15_000;
  while (Date.now() < end && child.exitCode === null) {
    if ((await readFile(path, 'utf8')).includes('serving')) return;
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  throw new UnreachableError(`the supervisor did not start; see ${path}`);
}

export async function stopSupervisor(uid: string): Promise<void> {
  const record = await readRecord(recordOf(uid));
  if (record === undefined) return;
  await signal(record, 'SIGTERM');
  if (!(await gone(record, 3000))) await signal(record, 'SIGKILL');
  await gone(record, 3000);
}

export async function supervisorRuns(uid: string): Promise<boolean> {
  return (await readRecord(recordOf(uid))) !== undefined;
}
