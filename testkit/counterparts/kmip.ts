import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { connect } from 'node:tls';
import { freePort } from '../free-port.ts';
import { type KeyPairPem, type TestCa, testCa } from '../test-ca.ts';

/** Debian's python3-pykmip is for Debian's Python, whatever other Python the machine has. */
const PYTHON = '/usr/bin/python3';
const LAUNCHER = join(import.meta.dirname, 'pykmip.py');
const START_TIMEOUT_MS = 30_000;
const ADMIN_TIMEOUT_MS = 30_000;

export interface RegisteredKey {
  readonly name: string;
  readonly algorithm?: 'AES' | 'TRIPLE_DES';
  /** 16, 24 or 32. */
  readonly value: Uint8Array;
  readonly usage?: readonly ('ENCRYPT' | 'DECRYPT' | 'SIGN')[];
}

/** A real PyKMIP server on this machine, with mutual TLS. Keys are made by PyKMIP's own client. */
export interface KmipServer extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** The authority of all its certificates, and of its clients. */
  readonly ca: TestCa;
  /** Of the client that owns the keys made here. */
  readonly client: KeyPairPem;
  /** An active AES-256 key for encryption and decryption. @returns its unique identifier */
  createKek(name: string): Promise<string>;
  /** A key that is not active yet. @returns its unique identifier */
  register(key: RegisteredKey): Promise<string>;
  activate(id: string): Promise<void>;
  revoke(id: string, reason: 'KEY_COMPROMISE' | 'CESSATION_OF_OPERATION'): Promise<void>;
  destroy(id: string): Promise<void>;
  /** A request as PyKMIP reads it and writes it again. */
  reencode(request: Uint8Array, version: '1.4' | '2.0'): Promise<Uint8Array>;
  kill(): Promise<void>;
  /** After {@link kill}: its keys are there again. */
  start(): Promise<void>;
}

/** @returns the reason to skip where PyKMIP is not installed; under continuous integration that is an error */
export function kmipSkip(): string | false {
  try {
    execFileSync(PYTHON, ['-c', 'import kmip'], { stdio: 'ignore', timeout: START_TIMEOUT_MS });
    return false;
  } catch (error) {
    if (process.env.CI !== undefined) throw error;
    return 'NOT TESTED against PyKMIP: python3-pykmip is not installed';
  }
}

/**
 * @param host address of this machine that it listens at
 * @throws Error with the end of its log when it does not come up
 */
export async function startKmip(host = '127.0.0.1'): Promise<KmipServer> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-kmip-'));
  const port = await freePort();
  const ca = await testCa();
  const server = await ca.issue({ name: 'localhost', usage: 'server', addresses: [host] });
  const client = await ca.issue({ name: 'asterism', usage: 'client' });
  const file = (name: string) => join(folder, name);
  await mkdir(file('policies'));
  await Promise.all([
    writeFile(file('ca.crt'), ca.pem),
    writeFile(file('server.crt'), server.certificate),
    writeFile(file('server.key'), server.key, { mode: 0o600 }),
    writeFile(file('client.crt'), client.certificate),
    writeFile(file('client.key'), client.key, { mode: 0o600 }),
    writeFile(
      file('server.conf'),
      [
        '[server]',
        `hostname=${host}`,
        `port=${port}`,
        `certificate_path=${file('server.crt')}`,
        `key_path=${file('server.key')}`,
        `ca_path=${file('ca.crt')}`,
        'auth_suite=TLS1.2',
        `policy_path=${file('policies')}`,
        'enable_tls_client_auth=True',
        'logging_level=INFO',
        `database_path=${file('keys.db')}`,
        '',
      ].join('\n'),
    ),
  ]);
  const children: ChildProcess[] = [];
  const onExit = () => {
    for (const child of children) child.kill('SIGKILL');
  };
  process.on('exit', onExit);
  const stop = async (child: ChildProcess | undefined) => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  const launch = async (args: readonly string[], stdin: 'ignore' | 'pipe') => {
    const log = await open(file('output.log'), 'a');
    // It ends with this process even when that is killed.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', PYTHON, LAUNCHER, ...args], {
      cwd: folder,
      stdio: [stdin, stdin === 'pipe' ? 'pipe' : log.fd, log.fd],
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: folder, TMPDIR: folder },
    });
    children.push(child);
    await log.close();
    return child;
  };

  let running: ChildProcess | undefined;
  const start = async () => {
    running = await launch(
      ['serve', '--config_path', file('server.conf'), '--log_path', file('server.log')],
      'ignore',
    );
    const limit = performance.now() + START_TIMEOUT_MS;
    while (!(await answers(host, port, ca, client))) {
      if (performance.now() > limit || running.exitCode !== null) {
        const logs = ['output.log', 'server.log'].map((name) => readFile(file(name), 'utf8').catch(() => ''));
        throw new Error(`PyKMIP does not come up:\n${(await Promise.all(logs)).join('\n').slice(-2000)}`);
      }
      await delay(100);
    }
  };

  let admin: Admin | undefined;
  const command = async (name: string, fields: object): Promise<string | null> => {
    admin ??= administer(
      await launch(
        ['admin', host, String(port), file('client.crt'), file('client.key'), file('ca.crt')],
        'pipe',
      ),
    );
    return admin({ command: name, ...fields });
  };
  const dispose = async () => {
    for (const child of children) await stop(child);
    process.off('exit', onExit);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await start();
  } catch (error) {
    await dispose();
    throw error;
  }
  const activate = async (id: string) => void (await command('activate', { id }));
  return {
    host,
    port,
    ca,
    client,
    async createKek(name) {
      const id = (await command('create', { name }))!;
      await activate(id);
      return id;
    },
    async register({ name, algorithm = 'AES', value, usage = ['ENCRYPT', 'DECRYPT'] }) {
      const hex = Buffer.from(value).toString('hex');
      const fields = { name, algorithm, length: 8 * value.length, value: hex, usage };
      return (await command('register', fields))!;
    },
    activate,
    revoke: async (id, reason) => void (await command('revoke', { id, reason })),
    destroy: async (id) => void (await command('destroy', { id })),
    async reencode(request, version) {
      const hex = Buffer.from(request).toString('hex');
      return new Uint8Array(Buffer.from((await command('reencode', { hex, version }))!, 'hex'));
    },
    kill: () => stop(running),
    start,
    [Symbol.asyncDispose]: dispose,
  };
}

type Admin = (request: object) => Promise<string | null>;

/** One request at a time. */
function administer(child: ChildProcess): Admin {
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  child.stdin!.on('error', () => {});
  let last: Promise<unknown> = Promise.resolve();
  return (request) => {
    const answer = last.then(async () => {
      child.stdin!.write(`${JSON.stringify(request)}\n`);
      const late = delay(ADMIN_TIMEOUT_MS, undefined, { ref: false }).then(() => {
        throw new Error('PyKMIP’s client does not answer');
      });
      const { value, done } = await Promise.race([lines.next(), late]);
      if (done) throw new Error('PyKMIP’s client ended');
      const { value: result, error } = JSON.parse(value) as { value?: string | null; error?: string };
      if (error !== undefined) throw new Error(`PyKMIP’s client: ${error}`);
      return result ?? null;
    });
    last = answer.catch(() => {});
    return answer;
  };
}

/** Whether a TLS handshake succeeds. */
function answers(host: string, port: number, ca: TestCa, { certificate, key }: KeyPairPem): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, ca: ca.pem, cert: certificate, key });
    const end = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.setTimeout(5_000, () => end(false));
    socket.once('secureConnect', () => end(true));
    socket.once('error', () => end(false));
  });
}
