import { spawn } from 'node:child_process';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { InstanceMetadata } from '@asterism/metadata/types';
import type { Kube } from './kube.ts';

const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 25_000;

export type ServiceName = 'join-service' | 'key-service' | 'verification-service';
const HEALTH_PORTS = { 'join-service': 9100, 'key-service': 9101, 'verification-service': 9102 } as const;

export interface ServiceProcess {
  readonly pid: number;
  /** Bytes. */
  residentMemory(): Promise<number>;
  health(path: '/healthz' | '/readyz' | '/metrics'): Promise<{ status: number; text: string }>;
  /** SIGTERM. @returns its exit code and what it logged */
  stop(): Promise<{ code: number | null; lines: Record<string, unknown>[] }>;
}

export interface ServiceProcessOptions {
  readonly name: ServiceName;
  /** Its bundle. */
  readonly program: string;
  /** A folder of its own: volumes and the audit log are made in it. */
  readonly folder: string;
  readonly kube: Kube;
  /** Address for libs/tpm. */
  readonly tpm?: string;
  /** Files in /var/config. */
  readonly config?: Readonly<Record<string, string | Uint8Array>>;
  /** Unix socket that {@link serveMetadata} listens on. */
  readonly metadataSocket?: string;
}

/**
 * Runs a service as its pod runs it: the bundle, with the paths and variables of its manifest. Its volumes are mounts in
 * a mount namespace of its own, so it takes root; its ports are the real ones.
 */
export async function startServiceProcess(options: ServiceProcessOptions): Promise<ServiceProcess> {
  const { name, folder, kube } = options;
  const account = join(folder, 'run/secrets/kubernetes.io/serviceaccount');
  const keyToken = join(folder, 'run/secrets/key-service');
  for (const path of [
    account,
    keyToken,
    join(folder, 'run/state/asterism/audit'),
    join(folder, 'var/config'),
  ])
    await mkdir(path, { recursive: true });
  await cp(kube.pki, join(folder, 'etc/kubernetes/pki'), { recursive: true });
  await writeFile(join(account, 'ca.crt'), kube.ca);
  await writeFile(join(account, 'token'), await kube.tokenOf(name));
  await writeFile(join(keyToken, 'token'), await kube.tokenOf(name, 'key-service'));
  for (const [file, content] of Object.entries(options.config ?? {}))
    await writeFile(join(folder, 'var/config', file), content);
  const script = [
    'set -e',
    `mount --bind ${folder}/run /run`,
    `mount --bind ${folder}/etc /etc`,
    'mount -t tmpfs tmpfs /var',
    'ln -s /run /var/run',
    `mkdir /var/config && mount --bind ${folder}/var/config /var/config`,
    `exec "${process.execPath}" --max-semi-space-size=2 "${options.program}"`,
  ].join('\n');
  const child = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      NODE_ENV: 'production',
      KUBERNETES_SERVICE_HOST: kube.host,
      KUBERNETES_SERVICE_PORT: String(kube.port),
      KEY_SERVICE_SERVICE_HOST: '127.0.0.1',
      ...(options.tpm && { ASTERISM_TPM: options.tpm }),
      ...(options.metadataSocket && { ASTERISM_METADATA: `unix:${options.metadataSocket}` }),
    },
  });
  let output = '';
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString('utf8')).slice(-1_000_000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const kill = () => child.kill('SIGKILL');
  process.on('exit', kill);
  const closed = new Promise<number | null>((resolve) =>
    child.once('close', (code) => {
      process.off('exit', kill);
      resolve(code);
    }),
  );
  const health = async (path: string) => {
    const answer = await fetch(`http://127.0.0.1:${HEALTH_PORTS[name]}${path}`);
    return { status: answer.status, text: await answer.text() };
  };
  for (const limit = Date.now() + START_TIMEOUT_MS; ; await delay(50)) {
    const ready = await health('/readyz').catch(() => undefined);
    if (ready?.status === 200) break;
    if (child.exitCode !== null || Date.now() > limit) {
      kill();
      throw new Error(`${name} did not get ready (${ready?.text ?? 'no answer'}): ${output}`);
    }
  }
  const pid = child.pid!;
  return {
    pid,
    async residentMemory() {
      const status = await readFile(`/proc/${pid}/status`, 'utf8');
      return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
    },
    health,
    async stop() {
      if (child.exitCode === null) child.kill('SIGTERM');
      const timer = setTimeout(kill, STOP_TIMEOUT_MS);
      const code = await closed;
      clearTimeout(timer);
      const lines = output.split('\n').filter((line) => line !== '');
      return { code, lines: lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
    },
  };
}

/** A local node's metadata (wire-facts 2.10) on a unix socket. */
export async function serveMetadata(
  socket: string,
  instances: readonly InstanceMetadata[],
): Promise<AsyncDisposable> {
  const peers = instances.map((instance) => ({
    Name: instance.name,
    ProviderID: instance.providerId,
    Role: instance.role,
    VPCIP: instance.vpcIp ?? '',
    SecondaryIPRange: instance.secondaryIpRange,
    AliasIPRanges: instance.aliasIpRanges,
  }));
  const answers: Record<string, unknown> = { '/self': peers[0], '/peers': peers, '/endpoint': '10.77.1.1' };
  const server = createServer((request, response) => {
    const answer = answers[request.url ?? ''];
    if (answer === undefined) response.writeHead(404).end();
    else response.end(JSON.stringify(answer));
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(socket, resolve));
  return {
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
