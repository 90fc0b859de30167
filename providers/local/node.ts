import type { ChildProcess } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UnreachableError } from '@asterism/errors/errors';
import { createGroup, hostGroupOf, processesIn, removeGroups } from './cgroups.ts';
import { gatewayOf, type LocalCluster, type LocalNode, nodeFolder, nodeRuntime } from './cluster.ts';
import { hostNameservers } from './egress.ts';
import { measuredBoot } from './measured-boot.ts';
import { connectNode, disconnectNode, nodeNetworkName } from './network.ts';
import {
  gone,
  killAll,
  launch,
  type ProcessRecord,
  readRecord,
  signal,
  startTimeOf,
  within,
  writeRecord,
} from './process.ts';
import { attachStateDisk, createStateDisk, mappingOf, releaseStateDisks } from './state-disks.ts';
import { powerOff, powerOn } from './tpm.ts';

const recordOf = (uid: string, node: string): string => join(nodeFolder(uid, node), 'init.pid');
const endOf = (uid: string, node: string): string => join(nodeFolder(uid, node), 'end');
/** A machine that emulates its processor takes half a minute. One that fails is noticed at once. */
const START_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 15_000;
/** systemd: power off cleanly. */
const SIGRTMIN_4 = 38;
/** The kernel ends the first process of a pid namespace with SIGHUP when that one asks for a reboot. */
const ENDED_BY_REBOOT = '129';

/** The node's first process, seen from the host; undefined where the node does not run. */
export function runningInit(uid: string, node: string): Promise<ProcessRecord | undefined> {
  return readRecord(recordOf(uid, node));
}

/**
 * Boots a node: TPM on, stages measured, namespaces made, systemd started. One that runs is left alone.
 * @throws UnreachableError its systemd or its TPM did not start
 */
export async function startNode(cluster: LocalCluster, node: LocalNode): Promise<void> {
  const { uid } = cluster;
  if ((await runningInit(uid, node.name)) !== undefined) return;
  await cleanUp(cluster, node);
  const folder = nodeFolder(uid, node.name);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await createStateDisk(uid, node.name, cluster.stateDiskMiB);
  const disk = await attachStateDisk(cluster, node.name);
  await powerOn(uid, node.name);
  const boot = await measuredBoot(cluster, node);
  await writeRuntime(cluster, node);
  await connectNode(cluster, node);
  const script = [
    boot.bootScript,
    node.name,
    folder,
    boot.squashfs,
    nodeRuntime(uid, node.name),
    boot.initrd,
    ...(disk === undefined ? [] : [disk]),
  ];
  // The cgroup namespace is made from within the node's own cgroups: they become the root of what the node sees.
  // What waits outside is in others, because a cgroup of version 2 that has children takes no processes.
  const inside = within(await createGroup(uid, node.name), ['unshare', '--cgroup', 'bash', ...script]);
  const outside = [
    ...['bash', '-c', 'end=$1; shift; "$@"; echo $? > "$end"', 'bash', endOf(uid, node.name)],
    ...['nsenter', `--net=/run/netns/${nodeNetworkName(uid, node.name)}`],
    ...['unshare', '--mount', '--uts', '--ipc', '--pid', '--fork', '--kill-child'],
    ...inside,
  ];
  const groups = await createGroup(uid, hostGroupOf(node.name));
  const child = launch(within(groups, outside), join(folder, 'console.log'));
  const init = await waitForInit(uid, node.name, child);
  await writeRecord(recordOf(uid, node.name), init);
}

/** The first process in the node's cgroups becomes systemd when the boot stage is through. */
async function waitForInit(uid: string, node: string, child: ChildProcess): Promise<number> {
  const end = Date.now() + START_TIMEOUT_MS;
  while (Date.now() < end && child.pid !== undefined && child.exitCode === null) {
    for (const pid of await processesIn(uid, node)) {
      const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
      if (name === 'systemd\n' && (await isFirstProcess(pid))) return pid;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const log = await readFile(join(nodeFolder(uid, node), 'console.log'), 'utf8').catch(() => '');
  const why =
    child.exitCode === null ? `nothing for ${START_TIMEOUT_MS / 1000} s` : 'its first process ended';
  throw new UnreachableError(
    `${node} did not boot (${why}): ${log.trim().split('\n').slice(-5).join(' | ')}`,
  );
}

async function isFirstProcess(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  // Its ids in the nested pid namespaces, the innermost last.
  return /^NSpid:.*\t1$/m.test(status) && (await startTimeOf(pid)) !== undefined;
}

/** Shuts a node down; its TPM state and its disks stay. */
export async function stopNode(cluster: LocalCluster, node: LocalNode): Promise<void> {
  const init = await runningInit(cluster.uid, node.name);
  if (init !== undefined) {
    await signal(init, SIGRTMIN_4);
    await gone(init, STOP_TIMEOUT_MS);
  }
  await killNode(cluster, node);
}

/** Pulls the plug. */
export async function killNode(cluster: LocalCluster, node: LocalNode): Promise<void> {
  const init = await runningInit(cluster.uid, node.name);
  if (init !== undefined) {
    await signal(init, 'SIGKILL');
    await gone(init, 5000);
  }
  await cleanUp(cluster, node);
}

/** Whether a node ended by itself since it was started: because it wanted to boot again, or for good. */
export async function endedBy(
  uid: string,
  node: string,
): Promise<'reboot' | 'power-off-or-crash' | undefined> {
  const end = await readFile(endOf(uid, node), 'utf8').catch(() => undefined);
  if (end === undefined || (await runningInit(uid, node)) !== undefined) return undefined;
  return end.trim() === ENDED_BY_REBOOT ? 'reboot' : 'power-off-or-crash';
}

/** Everything of a node that is not on a disk. */
async function cleanUp(cluster: LocalCluster, node: LocalNode): Promise<void> {
  const { uid } = cluster;
  await killAll(await processesIn(uid, node.name));
  await powerOff(uid, node.name);
  await killAll(await processesIn(uid, hostGroupOf(node.name)));
  await releaseStateDisks(uid, node.name);
  await disconnectNode(cluster, node);
  await removeGroups(uid, node.name);
  await removeGroups(uid, hostGroupOf(node.name));
  for (const path of [recordOf(uid, node.name), endOf(uid, node.name)]) await rm(path, { force: true });
  // The overlay's upper layer is the memory of one boot: what must survive is on the state volume.
  for (const name of ['upper', 'work'])
    await rm(join(nodeFolder(uid, node.name), name), { recursive: true, force: true });
}

/** What the node finds in /run/asterism. The metadata socket comes from the supervisor. */
async function writeRuntime(cluster: LocalCluster, node: LocalNode): Promise<void> {
  const folder = nodeRuntime(cluster.uid, node.name);
  const environment = {
    ASTERISM_PROVIDER: 'local',
    ASTERISM_ATTESTATION_VARIANT: 'qemu-vtpm',
    ASTERISM_TPM: 'swtpm:/run/asterism/tpm.sock',
    ASTERISM_EVENT_LOG: '/run/asterism/event-log.bin',
    ASTERISM_METADATA: 'unix:/run/asterism/metadata/metadata.sock',
    // boot.sh puts the one or the other there.
    ASTERISM_STATE_DISK: cluster.stateDisksMapped ? '/dev/state-disk' : '/run/asterism/state-disk.img',
    ASTERISM_STATE_MAPPED: String(cluster.stateDisksMapped),
    ASTERISM_STATE_MAPPING: mappingOf(cluster.uid, node.name),
  };
  const lines = Object.entries(environment).map(([name, value]) => `${name}=${value}\n`);
  await writeFile(join(folder, 'node.env'), lines.join(''));
  const nameservers = cluster.egress ? await hostNameservers() : [];
  // Where there is none the gateway refuses at once. Without any, programs would ask their own loopback.
  if (nameservers.length === 0) nameservers.push(gatewayOf(cluster));
  await writeFile(
    join(folder, 'resolv.conf'),
    nameservers.map((address) => `nameserver ${address}\n`).join(''),
  );
  await writeFile(join(folder, 'state-disk.img'), '');
}
