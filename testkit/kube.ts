import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type KubernetesApi, type KubernetesObject, kubernetesApi } from '@asterism/kubernetes/api';
import { DEFAULT_VERSION } from '@asterism/kubernetes/components/catalogue';
import { provideSomePrograms } from '@asterism/kubernetes/components/provide';
import { runChecked } from '@asterism/runtime/program';
import { freePort } from './free-port.ts';

const HOST = '127.0.0.1';
const PROGRAMS = ['etcd', 'kube-apiserver', 'kubeadm', 'kubectl'];
const START_TIMEOUT_MS = 90_000;
const STOP_TIMEOUT_MS = 10_000;
const BUILD_WAIT_MS = 20 * 60_000;

/** A Kubernetes API of its own for tests: etcd and kube-apiserver on loopback. No nodes, no controllers. */
export interface Kube extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** PEM of the cluster's CA. */
  readonly ca: string;
  /** Keys and certificates as kubeadm makes them: what /etc/kubernetes/pki is on a control plane. */
  readonly pki: string;
  /** May do everything. */
  readonly admin: KubernetesApi;
  /** The API as a service account of kube-system sees it, under the rules that are in force for it. */
  as(serviceAccount: string): Promise<KubernetesApi>;
  /** A token of a service account of kube-system, for the API server or for another audience. */
  tokenOf(serviceAccount: string, audience?: string): Promise<string>;
  /** `kubectl apply` with strict validation. */
  apply(...manifests: readonly string[]): Promise<void>;
  /** @throws KubernetesApiError unless it was created */
  create(namespacedPath: string, object: object): Promise<void>;
}

/**
 * Starts the default version of the catalogue; its programs are built first where the cache has none.
 * @throws Error with the end of the program's log when it does not come up
 */
export async function startKube(): Promise<Kube> {
  const bin = await programs();
  const folder = await mkdtemp(join(tmpdir(), 'asterism-kube-'));
  const running: ChildProcess[] = [];
  const onExit = () => {
    for (const child of running) child.kill('SIGKILL');
  };
  process.on('exit', onExit);
  const dispose = async () => {
    // The API server first: without etcd it would wait.
    for (const child of running.reverse()) await end(child);
    process.off('exit', onExit);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const pki = join(folder, 'pki');
    await makePki(join(bin, 'kubeadm'), folder, pki);
    const [etcdPort, peerPort, port] = await Promise.all([freePort(), freePort(), freePort()]);
    const etcdUrl = `http://${HOST}:${etcdPort}`;
    const token = randomBytes(16).toString('hex');
    await writeFile(join(folder, 'tokens.csv'), `${token},test-admin,1,system:masters\n`, { mode: 0o600 });

    const etcd = launch(join(bin, 'etcd'), folder, [
      `--data-dir=${join(folder, 'etcd')}`,
      `--listen-client-urls=${etcdUrl}`,
      `--advertise-client-urls=${etcdUrl}`,
      `--listen-peer-urls=http://${HOST}:${peerPort}`,
      `--initial-advertise-peer-urls=http://${HOST}:${peerPort}`,
      `--initial-cluster=default=http://${HOST}:${peerPort}`,
      // Data ends with the test; without waiting for disks it starts faster.
      '--unsafe-no-fsync',
      '--logger=zap',
      '--log-level=warn',
    ]);
    running.push(etcd);
    const apiServer = launch(join(bin, 'kube-apiserver'), folder, [
      `--etcd-servers=${etcdUrl}`,
      `--bind-address=${HOST}`,
      `--advertise-address=${HOST}`,
      '--endpoint-reconciler-type=none',
      `--secure-port=${port}`,
      `--tls-cert-file=${pki}/apiserver.crt`,
      `--tls-private-key-file=${pki}/apiserver.key`,
      `--client-ca-file=${pki}/ca.crt`,
      `--service-account-key-file=${pki}/sa.pub`,
      `--service-account-signing-key-file=${pki}/sa.key`,
      '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
      '--service-cluster-ip-range=10.96.0.0/12',
      '--authorization-mode=Node,RBAC',
      '--enable-admission-plugins=NodeRestriction',
      '--allow-privileged=true',
      `--token-auth-file=${join(folder, 'tokens.csv')}`,
    ]);
    running.push(apiServer);

    const ca = await readFile(join(pki, 'ca.crt'), 'utf8');
    const connect = (bearer: string) =>
      kubernetesApi({ host: HOST, port: port!, ca, token: async () => bearer });
    const admin = connect(token);
    await ready(admin, folder, running);

    const tokenOf = async (serviceAccount: string, audience?: string) => {
      const path = `/api/v1/namespaces/kube-system/serviceaccounts/${serviceAccount}/token`;
      const request = { spec: { expirationSeconds: 3600, ...(audience && { audiences: [audience] }) } };
      const answer = await admin.call<TokenRequest>('POST', path, {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        ...request,
      });
      return answer.status?.token ?? '';
    };
    return {
      host: HOST,
      port: port!,
      ca,
      pki,
      admin,
      tokenOf,
      as: async (serviceAccount) => connect(await tokenOf(serviceAccount)),
      async apply(...manifests) {
        const files = await Promise.all(
          manifests.map(async (text, i) => {
            const file = join(folder, `manifest-${i}.yaml`);
            await writeFile(file, text);
            return `--filename=${file}`;
          }),
        );
        const target = [`--server=https://${HOST}:${port}`, `--certificate-authority=${pki}/ca.crt`];
        const args = ['apply', '--validate=strict', `--token=${token}`, ...target, ...files];
        await runChecked(join(bin, 'kubectl'), args, { timeoutMs: 60_000, env: { HOME: folder, PATH: '' } });
      },
      async create(path, object) {
        await admin.call('POST', path, object);
      },
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

interface AccessReview extends KubernetesObject {
  readonly status?: { readonly allowed?: boolean };
}

interface TokenRequest extends KubernetesObject {
  readonly status?: { readonly token?: string };
}

/** Folder with the programs of the default version. */
function programs(): Promise<string> {
  const options = { signal: AbortSignal.timeout(BUILD_WAIT_MS), onDetail: () => {} };
  return provideSomePrograms(DEFAULT_VERSION, PROGRAMS, options);
}

async function makePki(kubeadm: string, folder: string, pki: string): Promise<void> {
  await mkdir(pki, { mode: 0o700 });
  const config = join(folder, 'kubeadm.yaml');
  await writeFile(
    config,
    [
      'apiVersion: kubeadm.k8s.io/v1beta4',
      'kind: InitConfiguration',
      'localAPIEndpoint: { advertiseAddress: 10.77.255.1 }',
      'nodeRegistration: { name: test }',
      '---',
      'apiVersion: kubeadm.k8s.io/v1beta4',
      'kind: ClusterConfiguration',
      `kubernetesVersion: ${DEFAULT_VERSION}`,
      `certificatesDir: ${pki}`,
      'encryptionAlgorithm: ECDSA-P256',
      `apiServer: { certSANs: ["${HOST}"] }`,
      '',
    ].join('\n'),
  );
  await runChecked(kubeadm, ['init', 'phase', 'certs', 'all', `--config=${config}`], { timeoutMs: 60_000 });
}

function launch(program: string, folder: string, args: readonly string[]): ChildProcess {
  const name = program.split('/').at(-1);
  // It ends with this process even when that is killed.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', program, ...args], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const log = createWriteStream(join(folder, `${name}.log`));
  log.on('error', () => {});
  child.stdout.pipe(log, { end: false });
  child.stderr.pipe(log, { end: false });
  child.once('close', () => log.end());
  child.once('error', (error) => log.write(error.message));
  return child;
}

async function ready(admin: KubernetesApi, folder: string, running: readonly ChildProcess[]): Promise<void> {
  const limit = performance.now() + START_TIMEOUT_MS;
  let reason: unknown;
  while (performance.now() < limit && running.every(({ exitCode, pid }) => exitCode === null && pid)) {
    try {
      // Roles and bindings are made after the server is up, by its own start-up hook, and count a moment later.
      const review = await admin.call<AccessReview>(
        'POST',
        '/apis/authorization.k8s.io/v1/subjectaccessreviews',
        {
          spec: {
            user: 'somebody',
            groups: ['system:authenticated'],
            resourceAttributes: {
              group: 'authentication.k8s.io',
              resource: 'selfsubjectreviews',
              verb: 'create',
            },
          },
        },
      );
      await admin.call('GET', '/api/v1/namespaces/kube-system');
      if (review.status?.allowed === true) return;
      reason = new Error('the rules of Kubernetes are not in force yet');
    } catch (error) {
      reason = error;
    }
    await delay(100);
  }
  const logs = await Promise.all(
    ['etcd', 'kube-apiserver'].map(async (name) => {
      const text = await readFile(join(folder, `${name}.log`), 'utf8').catch(() => '');
      return `${name}: ${text.slice(-1500)}`;
    }),
  );
  throw new Error(`the Kubernetes API did not come up: ${logs.join('\n')}`, { cause: reason });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
  await exited;
  clearTimeout(timer);
}
