import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  ContainerClient,
  newPipeline,
  type StoragePipelineOptions,
  StorageSharedKeyCredential,
} from '@azure/storage-blob';
import { freePort } from '../free-port.ts';
import type { TestCa } from '../test-ca.ts';
import { installed } from './installed.ts';

/** package.json and package-lock.json: every package of it is pinned with its hash. */
const LOCKED = join(import.meta.dirname, 'azurite');
const INSTALL_TIMEOUT_MS = 5 * 60_000;
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 5_000;

/**
 * Azurite, Microsoft's emulator of Azure Blob Storage, on this machine with HTTPS. It checks signatures of account keys, and
 * of Entra's tokens issuer, audience and lifetime, but not who signed them and what their identity may do.
 */
export interface Azurite extends AsyncDisposable {
  /** `https://<host>:<port>/<account>` */
  readonly endpoint: string;
  readonly account: string;
  readonly accountKey: string;
  createContainer(name: string): Promise<void>;
  /** It gets the time to write its index, which it does every 5 seconds only: the service itself loses nothing. */
  kill(): Promise<void>;
  /** After {@link kill}: what it had stored is there again. */
  start(): Promise<void>;
}

/**
 * Its program, installed on first use (about 365 MB).
 * @returns the reason to skip where the registry cannot be reached; under continuous integration that is an error
 */
export async function azuriteProgram(): Promise<{ program: string } | { skip: string }> {
  const lock = await readFile(join(LOCKED, 'package-lock.json'));
  return installed({
    name: 'azurite',
    digest: createHash('sha256').update(lock).digest('hex'),
    program: 'node_modules/azurite/dist/src/blob/main.js',
    timeoutMs: INSTALL_TIMEOUT_MS,
    async fill(work, run) {
      const out = join(work, 'out');
      await mkdir(out);
      for (const name of ['package.json', 'package-lock.json'])
        await copyFile(join(LOCKED, name), join(out, name));
      // No scripts of packages run.
      await run('npm', 'ci', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', out);
      return out;
    },
  });
}

/**
 * @param host address to listen on
 * @throws Error with the end of its log when it does not come up
 */
export async function startAzurite(program: string, ca: TestCa, host = '127.0.0.1'): Promise<Azurite> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-azurite-'));
  const port = await freePort();
  const own = await ca.issue({ name: 'localhost', usage: 'server', addresses: [host] });
  await writeFile(join(folder, 'server.crt'), own.certificate);
  await writeFile(join(folder, 'server.key'), own.key, { mode: 0o600 });
  const account = 'asterismtest';
  const accountKey = randomBytes(64).toString('base64');
  let child: ChildProcess | undefined;
  const onExit = () => child?.kill('SIGKILL');
  process.on('exit', onExit);

  const start = async () => {
    const log = await open(join(folder, 'azurite.log'), 'a');
    const flags = ['--location', folder, '--blobHost', host, '--blobPort', String(port)];
    flags.push('--cert', join(folder, 'server.crt'), '--key', join(folder, 'server.key'));
    // Its list of API versions is older than the SDK.
    flags.push('--oauth', 'basic', '--skipApiVersionCheck', '--disableTelemetry', '--silent');
    // It ends with this process even when that is killed.
    child = spawn('setpriv', ['--pdeathsig', 'KILL', process.execPath, program, ...flags], {
      cwd: folder,
      stdio: ['ignore', log.fd, log.fd],
      env: { PATH: process.env.PATH ?? '', HOME: folder, AZURITE_ACCOUNTS: `${account}:${accountKey}` },
    });
    await log.close();
    const limit = performance.now() + START_TIMEOUT_MS;
    while (!(await listens(host, port))) {
      if (performance.now() > limit || child.exitCode !== null) {
        const text = await readFile(join(folder, 'azurite.log'), 'utf8').catch(() => '');
        throw new Error(`Azurite does not come up:\n${text.slice(-2000)}`);
      }
      await delay(50);
    }
  };
  const kill = async () => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    const timer = setTimeout(() => child?.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await ended;
    clearTimeout(timer);
  };
  const dispose = async () => {
    await kill();
    process.off('exit', onExit);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await start();
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    endpoint: `https://${host}:${port}/${account}`,
    account,
    accountKey,
    async createContainer(name) {
      // Its HTTP client takes a CA, though its types do not say so.
      const options = { tlsOptions: { ca: ca.pem } } as StoragePipelineOptions;
      const credential = new StorageSharedKeyCredential(account, accountKey);
      const url = `https://${host}:${port}/${account}/${name}`;
      await new ContainerClient(url, newPipeline(credential, options)).create();
    },
    kill,
    start,
    [Symbol.asyncDispose]: dispose,
  };
}

function listens(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, host);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
