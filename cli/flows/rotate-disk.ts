import { type DiskKeyName, parseDiskKeyName, renderDiskKeyName } from '@asterism/disk/key-name';
import { AsterismError, PolicyError } from '@asterism/errors/errors';
import { nodeNameOf } from '@asterism/kubernetes/kubeadm';
import { EXIT, type ExitCode, exitCodeOf } from '../exit-codes.ts';
import { messageOf } from '../output.ts';
import type { DiskBindings, DiskRecord } from './disk-bindings.ts';
import { type DiskNode, type SyncedDisk, type SyncPlan, syncDisk } from './sync-disk.ts';

/** What became of one node's disk. */
export interface DiskOutcome {
  readonly node: string;
  /** `resumed`: a change that an earlier call began was completed, and no other one made. */
  readonly outcome: 'changed' | 'resumed' | 'unchanged' | 'failed';
  readonly diskUuid?: string;
  /** Names of its keys. */
  readonly from?: string;
  readonly to?: string;
  readonly error?: string;
  readonly exitCode: ExitCode;
}

export interface DiskPlan extends SyncPlan {
  readonly nodes: readonly DiskNode[];
  readonly bindings: DiskBindings;
  onStep(text: string): void;
}

/**
 * Gives the disk of each node another key. One node after the other; what fails at one does not keep the others. A change
 * that was begun before and not completed is completed, which is all that is done at that node.
 *
 * @throws UnreachableError | KubernetesApiError the disks cannot be listed: nothing was done
 */
export async function rotateDisks(plan: DiskPlan): Promise<DiskOutcome[]> {
  const before = await plan.bindings.list(plan.signal);
  return eachNode(plan, async (node) => {
    const found = await sync(plan, node);
    const pending = pendingOf(before, found);
    if (pending !== undefined)
      return { outcome: 'resumed', diskUuid: found.diskUuid, from: pending.key, to: found.keyName };
    const { generation, change } = parseDiskKeyName(found.keyName);
    return changeKey(plan, node, found, { generation, change: change + 1 });
  });
}

/** What became of the disks of a cluster. */
export interface MovedDisks {
  readonly disks: readonly DiskOutcome[];
  /** Disks of an earlier generation that no node of these has: of machines that are gone, or were given another disk. */
  readonly left: readonly DiskRecord[];
}

/**
 * Gives the disk of each node a key of a later generation of the key encryption key; disks that have one stay as they
 * are. Where keys are derived this is what ends the use of the earlier generation.
 */
export async function moveDisks(plan: DiskPlan, generation: number): Promise<MovedDisks> {
  const seen = new Set<string>();
  const disks = await eachNode(plan, async (node) => {
    const found = await sync(plan, node);
    seen.add(found.diskUuid);
    if (parseDiskKeyName(found.keyName).generation >= generation)
      return { outcome: 'unchanged', diskUuid: found.diskUuid, to: found.keyName };
    return changeKey(plan, node, found, { generation, change: 0 });
  });
  const left = (await plan.bindings.list(plan.signal)).filter(
    ({ diskUuid, key }) => !seen.has(diskUuid) && parseDiskKeyName(key).generation < generation,
  );
  return { disks, left };
}

/** Has each node write anew what its disk's header says, as after the key encryption key of a KMS was changed. */
export function refreshDisks(plan: DiskPlan): Promise<DiskOutcome[]> {
  return eachNode(plan, async (node) => {
    const { diskUuid, keyName, changed } = await sync(plan, node);
    return { outcome: changed ? 'changed' : 'unchanged', diskUuid, to: keyName };
  });
}

type Done = Omit<DiskOutcome, 'node' | 'exitCode' | 'error'>;

async function eachNode(plan: DiskPlan, work: (node: DiskNode) => Promise<Done>): Promise<DiskOutcome[]> {
  const outcomes: DiskOutcome[] = [];
  for (const node of plan.nodes) {
    const { name } = node;
    try {
      outcomes.push({ node: name, ...(await work(node)), exitCode: EXIT.done });
    } catch (error) {
      plan.signal.throwIfAborted();
      outcomes.push({ node: name, outcome: 'failed', error: messageOf(error), exitCode: exitCodeOf(error) });
    }
  }
  return outcomes;
}

function sync(plan: DiskPlan, node: DiskNode): Promise<SyncedDisk> {
  plan.onStep(`${node.name}: which key its disk has`);
  return syncDisk(node, plan);
}

/** The record of before, where a change was wished for then and is complete now. */
function pendingOf(before: readonly DiskRecord[], found: SyncedDisk): DiskRecord | undefined {
  return before.find(
    ({ diskUuid, key, nextKey }) =>
      diskUuid === found.diskUuid && nextKey !== undefined && key !== nextKey && nextKey === found.keyName,
  );
}

async function changeKey(
  plan: DiskPlan,
  node: DiskNode,
  { diskUuid, keyName }: SyncedDisk,
  wanted: DiskKeyName,
): Promise<Done> {
  const { bindings, signal, onStep } = plan;
  const { instanceName } = await bindings.get(diskUuid, signal);
  if (nodeNameOf(instanceName) !== node.name)
    throw new PolicyError('ERR_DISK_OWNER', `the disk of ${node.name} is bound to ${instanceName}`);
  const to = await bindings.wish(diskUuid, keyName, renderDiskKeyName(wanted), signal);
  onStep(`${node.name}: from key ${keyName} to ${to}`);
  const after = await syncDisk(node, plan);
  const { key, nextKey } = await bindings.get(diskUuid, signal);
  if (after.diskUuid !== diskUuid || after.keyName !== to || key !== to || nextKey !== undefined)
    throw new AsterismError(
      'ERR_DISK_STATE',
      `the disk of ${node.name} should have the key ${to}; the node says ${after.keyName}, the cluster ${key}. ` +
        'Somebody else is at work: run this again',
    );
  return { outcome: 'changed', diskUuid, from: keyName, to };
}
