import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { withTpm } from '@asterism/tpm/with-tpm';

const run = promisify(execFile);

/** A software TPM of its own for a test. `await using tpm = await startSwtpm()`. */
export interface Swtpm extends AsyncDisposable {
  /** Address for libs/tpm. */
  readonly address: string;
  /** TCTI for tpm2-tools. */
  readonly tcti: string;
  /** Shuts it down cleanly and starts it again on the same state: PCRs are reset, keys stay. */
  reboot(): Promise<void>;
}

/** Starts swtpm in a temporary folder with the given PCR banks (default SHA-256 only). */
export async function startSwtpm(banks = 'sha256'): Promise<Swtpm> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-swtpm-'));
  const socket = join(folder, 'tpm.sock');
  await run('swtpm_setup', ['--tpm2', '--tpmstate', folder, '--pcr-banks', banks], { timeout: 30_000 });
  let child = await launch(folder, socket);
  const address = `swtpm:${socket}`;
  const stop = async () => {
    await withTpm(address, (tpm) => tpm.shutdown()).catch(() => {});
    await end(child);
  };
  return {
    address,
    tcti: `swtpm:path=${socket}`,
    async reboot() {
      await stop();
      child = await launch(folder, socket);
    },
    async [Symbol.asyncDispose]() {
      await stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function launch(folder: string, socket: string): Promise<ChildProcess> {
  await rm(socket, { force: true });
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
      `type=unixio,path=${socket}.ctrl`,
      '--flags',
      'not-need-init,startup-clear',
    ],
    { stdio: 'ignore' },
  );
  const limit = Date.now() + 10_000;
  while (Date.now() < limit) {
    if (child.exitCode !== null) break;
    const up = await new Promise<boolean>((resolve) => {
      const probe = connect({ path: `${socket}.ctrl` });
      probe.once('connect', () => resolve(true)).once('error', () => resolve(false));
      probe.once('connect', () => probe.destroy());
    });
    if (up) return child;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  child.kill('SIGKILL');
  throw new Error(`swtpm did not start in ${folder}`);
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const closed = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 3000);
  await closed;
  clearTimeout(timer);
}
