import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { UnreachableError } from '@asterism/errors/errors';
import { createGroup, processesIn, removeGroups } from './cgroups.ts';
import { clusterFolder, type LocalCluster } from './cluster.ts';
import { fabricName } from './network.ts';
import { killAll, launch, readRecord, within, writeRecord } from './process.ts';

const recordOf = (uid: string): string => join(clusterFolder(uid), 'supervisor.pid');
/** Its cgroup. No node can have that name. */
const GROUP = 'supervisor.host';
const START_TIMEOUT_MS = 60_000;
/** One that dies again and again must not fill the disk with its log. */
const AGAIN =
  'log=$1; shift; while :; do "$@"; sleep 1; [ "$(stat -c %s "$log")" -lt 1000000 ] || : > "$log"; done';

/** Starts the process that serves metadata, load balancer and mirror, unless it runs. It is started again when it dies. */
export async function startSupervisor(cluster: LocalCluster): Promise<void> {
  const { uid } = cluster;
  if ((await readRecord(recordOf(uid))) !== undefined) return;
  await stopSupervisor(uid);
  const log = join(clusterFolder(uid), 'supervisor.log');
  const main = join(import.meta.dirname, 'supervisor-main.ts');
  const start = ['nsenter', `--net=/run/netns/${fabricName(uid)}`, process.execPath, main, uid];
  const again = ['bash', '-c', AGAIN, 'bash', log];
  await rm(log, { force: true });
  const child = launch(within(await createGroup(uid, GROUP), [...again, ...start]), log);
  if (child.pid !== undefined) await writeRecord(recordOf(uid), child.pid);
  const end = Date.now() + START_TIMEOUT_MS;
  while (Date.now() < end && child.exitCode === null) {
    if ((await readFile(log, 'utf8')).includes('serving')) return;
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  const last = (await readFile(log, 'utf8').catch(() => '')).trim().split('\n').slice(-5).join(' | ');
  throw new UnreachableError(`the supervisor did not start, see ${log}: ${last}`);
}

export async function stopSupervisor(uid: string): Promise<void> {
  const record = await readRecord(recordOf(uid));
  // What starts it again goes first. Neither holds anything that has to be put away.
  if (record !== undefined) await killAll([record.pid]);
  await killAll(await processesIn(uid, GROUP));
  await removeGroups(uid, GROUP);
}
