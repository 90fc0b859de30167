import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { UnreachableError } from '@asterism/errors/errors';
import { withTpm } from '@asterism/tpm/with-tpm';
import { createGroup, hostGroupOf } from './cgroups.ts';
import { nodeFolder, nodeRuntime, runtimeFolder, tpmControl } from './cluster.ts';
import { host } from './host.ts';
import { gone, launch, readRecord, signal, within, writeRecord } from './process.ts';

const START_TIMEOUT_MS = 30_000;

const recordOf = (uid: string, node: string): string => join(nodeFolder(uid, node), 'swtpm.pid');

/** Address of a node's TPM, from the host. */
export const tpmAddress = (uid: string, node: string): string =>
  `swtpm:${join(nodeRuntime(uid, node), 'tpm.sock')}`;

/**
 * Powers a node's TPM on: PCRs are zero, keys and NV memory are as they were. It is made on first use.
 * @throws UnreachableError it did not start within 30 s
 */
export async function powerOn(uid: string, node: string): Promise<void> {
  const folder = join(nodeFolder(uid, node), 'tpm');
  const groups = await createGroup(uid, hostGroupOf(node));
  if (!(await stat(folder).catch(() => undefined))) await manufacture(folder, groups);
  const socket = join(nodeRuntime(uid, node), 'tpm.sock');
  const log = join(nodeFolder(uid, node), 'swtpm.log');
  await mkdir(nodeRuntime(uid, node), { recursive: true, mode: 0o700 });
  await mkdir(join(runtimeFolder(uid), 'tpm-control'), { recursive: true, mode: 0o700 });
  await rm(socket, { force: true });
  const swtpm = ['swtpm', 'socket', '--tpm2', '--tpmstate', `dir=${folder}`];
  swtpm.push('--server', `type=unixio,path=${socket}`, '--ctrl', `type=unixio,path=${tpmControl(uid, node)}`);
  swtpm.push('--flags', 'not-need-init,startup-clear');
  const child = launch(within(groups, swtpm), log);
  const end = Date.now() + START_TIMEOUT_MS;
  while (Date.now() < end && child.pid !== undefined && child.exitCode === null) {
    if (await answers(uid, node)) return writeRecord(recordOf(uid, node), child.pid);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new UnreachableError(`the TPM of ${node} did not start; see ${log}`);
}

/** Its socket is there a moment before it takes connections. */
function answers(uid: string, node: string): Promise<boolean> {
  return withTpm(tpmAddress(uid, node), (tpm) => tpm.getRandom(8), { timeoutMs: 3000 }).then(
    () => true,
    () => false,
  );
}

/** Makes the state of a new TPM. In a folder beside: what was cut off in between is not a TPM. */
async function manufacture(folder: string, groups: readonly string[]): Promise<void> {
  const part = `${folder}.part`;
  await rm(part, { recursive: true, force: true });
  await mkdir(part, { recursive: true, mode: 0o700 });
  const setup = ['swtpm_setup', '--tpm2', '--tpmstate', part, '--pcr-banks', 'sha256', '--overwrite'];
  const [program, ...args] = within(groups, setup);
  await host(program!, ...args);
  await rename(part, folder);
}

/** Powers it off as a machine does: with a shutdown command first, so that it does not suspect an attack. */
export async function powerOff(uid: string, node: string): Promise<void> {
  const record = await readRecord(recordOf(uid, node));
  if (record === undefined) return;
  await withTpm(tpmAddress(uid, node), (tpm) => tpm.shutdown(), { timeoutMs: 3000 }).catch(() => {});
  await signal(record, 'SIGTERM');
  if (!(await gone(record, 3000))) await signal(record, 'SIGKILL');
  await gone(record, 3000);
  await rm(recordOf(uid, node), { force: true });
}
