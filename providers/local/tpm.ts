import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UnreachableError } from '@asterism/errors/errors';
import { withTpm } from '@asterism/tpm/with-tpm';
import { nodeFolder, nodeRuntime, runtimeFolder, tpmControl } from './cluster.ts';
import { host } from './host.ts';
import { gone, readRecord, signal, startTimeOf } from './process.ts';

const recordOf = (uid: string, node: string): string => join(nodeFolder(uid, node), 'swtpm.pid');

/** Address of a node's TPM, from the host. */
export const tpmAddress = (uid: string, node: string): string =>
  `swtpm:${join(nodeRuntime(uid, node), 'tpm.sock')}`;

/**
 * Powers a node's TPM on: PCRs are zero, keys and NV memory are as they were. It is made on first use.
 */
export async function powerOn(uid: string, node: string): Promise<void> {
  const folder = join(nodeFolder(uid, node), 'tpm');
  if (!(await stat(join(folder, 'tpm2-00.permall')).catch(() => undefined))) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await host('swtpm_setup', '--tpm2', '--tpmstate', folder, '--pcr-banks', 'sha256', '--overwrite');
  }
  const socket = join(nodeRuntime(uid, node), 'tpm.sock');
  await mkdir(nodeRuntime(uid, node), { recursive: true, mode: 0o700 });
  await mkdir(join(runtimeFolder(uid), 'tpm-control'), { recursive: true, mode: 0o700 });
  await rm(socket, { force: true });
  const log = openSync(join(nodeFolder(uid, node), 'swtpm.log'), 'a', 0o600);
  const child = spawn(
    'swtpm',
    [
      'socket',
      '--tpm2',
      '--tpmstate',
      `dir=${folder}`,
      '--server',
      `type=unixio,path=${socket}`,
      '--ctrl',
      `type=unixio,path=${tpmControl(uid, node)}`,
      '--flags',
      'not-need-init,startup-clear',
    ],
    { stdio: ['ignore', log, log], detached: true },
  );
  closeSync(log);
  child.unref();
  const end = Date.now() + 10_000;
  while (Date.now() < end && child.exitCode === null) {
    if (await stat(socket).catch(() => undefined)) {
      await writeFile(recordOf(uid, node), `${child.pid} ${await startTimeOf(child.pid!)}`);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new UnreachableError(
    `the TPM of ${node} did not start; see ${join(nodeFolder(uid, node), 'swtpm.log')}`,
  );
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
