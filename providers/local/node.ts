import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UnreachableError } from '@asterism/errors/errors';
import { createNodeGroups, processesIn, removeGroups } from './cgroups.ts';
import { gatewayOf, type LocalCluster, type LocalNode, nodeFolder, nodeRuntime } from './cluster.ts';
import { measuredBoot } from './measured-boot.ts';
import { connectNode, disconnectNode, nodeNetworkName } from './network.ts';
import { gone, type ProcessRecord, readRecord, signal, startTimeOf } from './process.ts';
import { powerOff, powerOn } from './tpm.ts';

const recordOf = (uid: string, node: string): string => join(nodeFolder(uid, node), 'init.pid');
const START_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 15_000;
/** systemd: power off cleanly. */
const SIGRTMIN_4 = 38;

/** The node's first process, seen from the host; undefined where the node does not run. */
export function runningInit(uid: string, node: string): Promise<ProcessRecord | undefined> {
  return readRecord(recordOf(uid, node));
}

/** Boots a node: TPM on, stages measured, namespaces made, systemd started. One that runs is left alone. */
export async function startNode(cluster: LocalCluster, node: LocalNode): Promise<void> {
  const { uid } = cluster;
  if ((await runningInit(uid, node.name)) !== undefined) return;
  await cleanUp(cluster, node);
  const folder = nodeFolder(uid, node.name);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await createStateDisk(join(folder, 'state-disk.img'), cluster.stateDiskMiB);
  await powerOn(uid, node.name);
  const boot = await measuredBoot(cluster, node);
  await writeRuntime(cluster, node);
  await connectNode(cluster, node);
  const groups = await createNodeGroups(uid, node.name);
  const console_ = openSync(join(folder, 'console.log'), 'a', 0o600);
  // The shell enters the node's cgroups by itself, so that nothing of the node was ever outside of them.
  const child = spawn(
    'bash',
    [
      '-ec',
      // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell that fills it in
      'for file in "${@:1:$0}"; do echo $$ > "$file"; done; shift "$0"; exec "$@"',
      String(groups.length),
      ...groups,
      'nsenter',
      `--net=/run/netns/${nodeNetworkName(uid, node.name)}`,
      ...['unshare', '--mount', '--uts', '--ipc', '--pid', '--cgroup', '--fork', '--kill-child'],
      ...[
        'bash',
        boot.bootScript,
        node.name,
        folder,
        boot.squashfs,
        nodeRuntime(uid, node.name),
        boot.initrd,
      ],
    ],
    { stdio: ['ignore', console_, console_], detached: true },
  );
  closeSync(console_);
  child.unref();
  const init = await waitForInit(child, folder);
  await writeFile(recordOf(uid, node.name), `${init.pid} ${init.started}`);
}

/** The child of unshare becomes systemd when the boot stage is through. */
async function waitForInit(child: ChildProcess, folder: string): Promise<ProcessRecord> {
  const outer = child.pid!;
  const end = Date.now() + START_TIMEOUT_MS;
  // A process that is just being replaced (exec) shows no children for a moment: only its end counts as failure.
  while (Date.now() < end && child.exitCode === null && child.signalCode === null) {
    const children = await readFile(`/proc/${outer}/task/${outer}/children`, 'utf8').catch(() => '');
    const pid = Number(children.trim().split(' ')[0]);
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
    const started = await startTimeOf(pid);
    if (name.trim() === 'systemd' && started !== undefined) return { pid, started };
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const log = await readFile(join(folder, 'console.log'), 'utf8').catch(() => '');
  const why = child.exitCode ?? child.signalCode ?? `nothing for ${START_TIMEOUT_MS / 1000} s`;
  throw new UnreachableError(
    `the node did not boot (${why}): ${log.trim().split('\n').slice(-5).join(' | ')}`,
  );
}

/** Shuts a node down; its TPM state and its disks stay. */
export async function stopNode(cluster: LocalCluster, node: LocalNode): Promise<void> {
  const init = await runningInit(cluster.uid, node.name);
  if (init !== undefined) {
    await signal(init, SIGRTMIN_4);
    if (!(await gone(init, STOP_TIMEOUT_MS))) await signal(init, 'SIGKILL');
    await gone(init, 5000);
  }
  await cleanUp(cluster, node);
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

/** Everything of a node that is not on a disk. */
async function cleanUp(cluster: LocalCluster, node: LocalNode): Promise<void> {
  const { uid } = cluster;
  for (const pid of await processesIn(uid, node.name)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended by itself.
    }
  }
  await powerOff(uid, node.name);
  await disconnectNode(cluster, node);
  await removeGroups(uid, node.name);
  await rm(recordOf(uid, node.name), { force: true });
  // The overlay's upper layer is the memory of one boot: what must survive is on the state volume.
  for (const name of ['upper', 'work'])
    await rm(join(nodeFolder(uid, node.name), name), { recursive: true, force: true });
}

async function createStateDisk(path: string, mebibytes: number): Promise<void> {
  if (await stat(path).catch(() => undefined)) return;
  const file = await open(path, 'wx', 0o600);
  await file.truncate(mebibytes * 1024 * 1024);
  await file.close();
}

/** What the node finds in /run/asterism. The metadata socket comes from the supervisor. */
async function writeRuntime(cluster: LocalCluster, node: LocalNode): Promise<void> {
  const folder = nodeRuntime(cluster.uid, node.name);
  const environment = {
    ASTERISM_PROVIDER: 'local',
    ASTERISM_ATTESTATION_VARIANT: 'qemu-vtpm',
    ASTERISM_TPM: 'swtpm:/run/asterism/tpm.sock',
    ASTERISM_EVENT_LOG: '/run/asterism/event-log.bin',
    ASTERISM_METADATA: 'unix:/run/asterism/metadata.sock',
    ASTERISM_STATE_DISK: '/run/asterism/state-disk.img',
    // A system container shares the kernel's devices: even with device-mapper it cannot map safely by itself.
    ASTERISM_STATE_MAPPED: 'false',
  };
  const lines = Object.entries(environment).map(([name, value]) => `${name}=${value}\n`);
  await writeFile(join(folder, 'node.env'), lines.join(''));
  await writeFile(join(folder, 'resolv.conf'), `nameserver ${gatewayOf(cluster)}\n`);
  await writeFile(join(folder, 'state-disk.img'), '');
}
