import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer, type TLSSocket } from 'node:tls';
import { runChecked } from '@asterism/runtime/program';
import { type KeyPairPem, type TestCa, testCa } from '../test-ca.ts';

export const SOFTHSM_MODULE = '/usr/lib/softhsm/libsofthsm2.so';
const SO_PIN = 'officer-87654321';
const TIMEOUT_MS = 20_000;

/** SoftHSM2 with one token, served by `p11-kit remote` behind mutual TLS on this machine. */
export interface TestHsm extends AsyncDisposable {
  readonly ca: TestCa;
  readonly client: KeyPairPem;
  readonly port: number;
  readonly tokenLabel: string;
  readonly pin: string;
  /** The SoftHSM2 configuration: who has it as SOFTHSM2_CONF in the environment uses the same tokens. */
  readonly configuration: string;
  /** Connections that were accepted. */
  readonly connections: number;
  /** pkcs11-tool as the user of the token. */
  tool(...args: readonly string[]): Promise<string>;
  /** The key as docs/keys/pkcs11.md makes it. */
  makeKey(label: string, id?: string): Promise<void>;
  initToken(label: string): Promise<void>;
  deleteToken(label: string): Promise<void>;
  /** Ends the connections and their programs, not the server. */
  breakConnections(): void;
  /** Ends the server with all its connections and programs. */
  stop(): Promise<void>;
  /** After {@link stop}: on the same port. */
  start(): Promise<void>;
}

/** @param host address to listen on */
export async function startHsm(host = '127.0.0.1'): Promise<TestHsm> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-hsm-'));
  const configuration = join(folder, 'softhsm2.conf');
  await mkdir(join(folder, 'tokens'), { mode: 0o700 });
  await writeFile(
    configuration,
    `directories.tokendir = ${join(folder, 'tokens')}\nobjectstore.backend = file\nlog.level = ERROR\n`,
  );
  const [tokenLabel, pin] = ['asterism-hsm', 'user-pin-1234'];
  const ca = await testCa();
  const own = await ca.issue({ name: 'localhost', usage: 'server', addresses: [host] });
  const client = await ca.issue({ name: 'asterism', usage: 'client' });

  const env = { PATH: process.env.PATH ?? '', SOFTHSM2_CONF: configuration, HOME: folder, PIN: pin };
  const run = (program: string, ...args: string[]) =>
    runChecked(program, args, { timeoutMs: TIMEOUT_MS, env });
  const tool = (...args: readonly string[]) =>
    run(
      'pkcs11-tool',
      `--module=${SOFTHSM_MODULE}`,
      `--token-label=${tokenLabel}`,
      '--login',
      '--pin=env:PIN',
      ...args,
    );
  const initToken = async (label: string) => {
    await run(
      'softhsm2-util',
      '--init-token',
      '--free',
      `--label=${label}`,
      `--so-pin=${SO_PIN}`,
      `--pin=${pin}`,
    );
  };

  const running = new Map<TLSSocket, ChildProcess>();
  const onExit = () => {
    for (const child of running.values()) child.kill('SIGKILL');
  };
  process.on('exit', onExit);
  let accepted = 0;
  const serve = (socket: TLSSocket) => {
    accepted++;
    // It ends with this process even when that is killed.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'p11-kit', 'remote', SOFTHSM_MODULE], {
      env,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    running.set(socket, child);
    for (const stream of [socket, child.stdin, child.stdout]) stream.on('error', () => {});
    socket.pipe(child.stdin);
    child.stdout.pipe(socket);
    child.on('exit', () => socket.destroy());
    socket.on('close', () => {
      running.delete(socket);
      child.kill('SIGKILL');
    });
  };
  const options = {
    cert: own.certificate,
    key: own.key,
    ca: ca.pem,
    requestCert: true,
    rejectUnauthorized: true,
  };
  let server = createServer(options, serve);
  let port = 0;
  const start = async () => {
    server = createServer(options, serve);
    server.on('tlsClientError', () => {});
    server.listen(port, host);
    await once(server, 'listening');
    port = (server.address() as AddressInfo).port;
  };
  const breakConnections = () => {
    for (const socket of running.keys()) socket.destroy();
  };
  const stop = async () => {
    const closed = once(server, 'close');
    server.close();
    const ended = [...running.values()].map((child) => once(child, 'exit'));
    breakConnections();
    await Promise.all([closed, ...ended]);
  };
  const dispose = async () => {
    if (server.listening) await stop();
    process.off('exit', onExit);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await initToken(tokenLabel);
    await start();
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    ca,
    client,
    port,
    tokenLabel,
    pin,
    configuration,
    get connections() {
      return accepted;
    },
    tool,
    makeKey: async (label, id = '01') => {
      await tool(
        '--keygen',
        '--key-type=AES:32',
        `--label=${label}`,
        `--id=${id}`,
        '--sensitive',
        '--private',
        '--usage-wrap',
      );
    },
    initToken,
    deleteToken: async (label) => {
      await run('softhsm2-util', '--delete-token', `--token=${label}`);
    },
    breakConnections,
    start,
    stop,
    [Symbol.asyncDispose]: dispose,
  };
}
