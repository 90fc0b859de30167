import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { withTpm } from '@asterism/tpm/with-tpm';

const run = promisify(execFile);
const SETUP_TIMEOUT_MS = 60_000;
const START_TIMEOUT_MS = 30_000;
const ANSWER_TIMEOUT_MS = 3000;
const STOP_TIMEOUT_MS = 3000;

/** A software TPM of its own for a test. `await using tpm = await startSwtpm()`. */
export interface Swtpm extends AsyncDisposable {
  /** Address for libs/tpm. */
  readonly address: string;
  /** Unix socket of raw TPM commands. */
  readonly socket: string;
  /** TCTI for tpm2-tools. */
  readonly tcti: string;
  /** Shuts it down cleanly and starts it again on the same state: PCRs are reset, persistent keys stay. */
  reboot(): Promise<void>;
  /** Power cut: kills it without TPM2_Shutdown and starts it again on the same state. */
  powerCycle(): Promise<void>;
}

/**
 * Starts swtpm in a temporary folder with the given PCR banks (default SHA-256 only). It ends with its disposal, and
 * at the latest with this process.
 */
export async function startSwtpm(banks = 'sha256'): Promise<Swtpm> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-swtpm-'));
  const socket = join(folder, 'tpm.sock');
  const address = `swtpm:${socket}`;
  let child: ChildProcess | undefined;
  const onExit = () => {
    child?.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  };
  process.on('exit', onExit);
  const stop = async (signal: NodeJS.Signals) => {
    if (child !== undefined) await end(child, signal);
    child = undefined;
  };
  const shutDown = () =>
    withTpm(address, (tpm) => tpm.shutdown(), { timeoutMs: STOP_TIMEOUT_MS }).catch(() => {});
  const dispose = async () => {
    await stop('SIGKILL');
    process.off('exit', onExit);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await run('swtpm_setup', ['--tpm2', '--tpmstate', folder, '--pcr-banks', banks], {
      timeout: SETUP_TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    child = await launch(folder, socket);
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    address,
    socket,
    tcti: `swtpm:path=${socket}`,
    async reboot() {
      await shutDown();
      await stop('SIGTERM');
      child = await launch(folder, socket);
    },
    async powerCycle() {
      await stop('SIGKILL');
      child = await launch(folder, socket);
    },
    [Symbol.asyncDispose]: dispose,
  };
}

async function launch(folder: string, socket: string): Promise<ChildProcess> {
  await rm(socket, { force: true });
  const log = join(folder, 'swtpm.log');
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
      '--log',
      `file=${log}`,
    ],
    { stdio: 'ignore' },
  );
  let failure: Error | undefined;
  child.once('error', (error) => {
    failure = error;
  });
  const limit = performance.now() + START_TIMEOUT_MS;
  while (failure === undefined && child.exitCode === null && performance.now() < limit) {
    // Its socket, and the control socket too, are there before it listens. An unanswered probe would keep a place in
    // its backlog of one.
    if (await answers(socket)) return child;
    await delay(10);
  }
  child.kill('SIGKILL');
  const said = failure?.message ?? (await readFile(log, 'utf8').catch(() => ''));
  throw new Error(`swtpm did not start in ${folder}: ${said}`, { cause: failure });
}

function answers(socket: string): Promise<boolean> {
  return withTpm(`swtpm:${socket}`, (tpm) => tpm.getRandom(1), { timeoutMs: ANSWER_TIMEOUT_MS }).then(
    () => true,
    () => false,
  );
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
  await exited;
  clearTimeout(timer);
}
