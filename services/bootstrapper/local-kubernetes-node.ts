import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeFileAtomic } from '@asterism/disk/atomic-file';
import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import { imageArchives, importImage, startContainerd } from '@asterism/kubernetes/containerd';
import { type Component, installComponent } from '@asterism/kubernetes/install';
import { ADMIN_KUBECONFIG, API_PORT, KUBERNETES_FOLDER } from '@asterism/kubernetes/kubeadm';
import { signOwnKubeletCertificate, startKubelet } from '@asterism/kubernetes/kubelet';
import { PROGRAM_PATH, runChecked, runProgram } from '@asterism/runtime/program';
import { COMPONENT_ROOTS } from './init-request.ts';
import type { KubernetesNode, Manifest } from './kubernetes-node.ts';

export interface LocalKubernetesNodeOptions {
  /** Folder for the components' images, on the state disk. */
  readonly stateImages: string;
  /** Folder of the image archives in the measured root file system. */
  readonly nodeImages: string;
  /** Folder of the manifests in the measured root file system. */
  readonly manifests: string;
  readonly log: (line: string) => void;
}

const KUBECTL = '/run/state/bin/kubectl';
const KUBEADM = '/run/state/bin/kubeadm';
const API_TIMEOUT_MS = 240_000;
const ROLLOUT_TIMEOUT_MS = 300_000;
const FILE_TIMEOUT_MS = 240_000;
/** Manifests whose name begins so make the pod network, which everything else waits for. */
const NETWORK_MANIFEST = /^(\d+-)?(cni|flannel|network)/;

/** The real node: systemd, containerd, kubeadm, kubectl. */
export class LocalKubernetesNode implements KubernetesNode {
  readonly #options: LocalKubernetesNodeOptions;

  constructor(options: LocalKubernetesNodeOptions) {
    this.#options = options;
  }

  async installComponents(components: readonly Component[], signal: AbortSignal): Promise<void> {
    // One after the other: the installer sweeps a folder of what killed installations left in it.
    for (const component of components) {
      this.#options.log(`component ${component.installPath}`);
      await installComponent(component, { allowedRoots: COMPONENT_ROOTS, signal, log: this.#options.log });
    }
  }

  startContainerd(signal: AbortSignal): Promise<void> {
    return startContainerd(60_000, signal);
  }

  async importImages(signal: AbortSignal): Promise<void> {
    const { stateImages, nodeImages, log } = this.#options;
    const waiting = [...(await imageArchives(nodeImages)), ...(await imageArchives(stateImages))];
    // Two at a time: one unpacks while the other is read.
    const worker = async (): Promise<void> => {
      for (let archive = waiting.shift(); archive !== undefined; archive = waiting.shift()) {
        // An import takes seconds: one that is done is not done again after a kill.
        const { size, mtimeMs } = await stat(archive);
        const mark = `${stateImages}/.imported/${basename(archive)}`;
        const content = `${size} ${mtimeMs}\n`;
        if ((await readFile(mark, 'utf8').catch(() => '')) === content) continue;
        log(`image ${archive}`);
        await importImage(archive, signal);
        await writeFileAtomic(mark, content);
      }
    };
    await Promise.all([worker(), worker()]);
  }

  writeFile(path: string, content: string, mode: number): Promise<void> {
    return writeFileAtomic(path, content, mode);
  }

  async hasFile(path: string): Promise<boolean> {
    return (await stat(path).catch(() => undefined)) !== undefined;
  }

  async removeFiles(paths: readonly string[]): Promise<void> {
    for (const path of paths) await rm(path, { force: true });
  }

  async waitForFile(path: string, signal: AbortSignal): Promise<void> {
    await this.#poll(path, FILE_TIMEOUT_MS, signal, async () =>
      (await this.hasFile(path)) ? undefined : 'it is not there yet',
    );
  }

  async kubeadm(args: readonly string[], timeoutMs: number, signal: AbortSignal): Promise<string> {
    await mkdir(KUBERNETES_FOLDER, { recursive: true });
    // `kubeadm kubeconfig` prints one, with its key: neither the log nor an error may have it.
    const secretOutput = args[0] === 'kubeconfig';
    return runChecked(KUBEADM, args, {
      timeoutMs,
      signal,
      env: { PATH: PROGRAM_PATH, LC_ALL: 'C', HOME: '/root' },
      secretOutput,
      ...(secretOutput ? {} : { onLine: this.#options.log }),
    });
  }

  signKubeletCertificate(nodeName: string, nodeIp: string): Promise<void> {
    return signOwnKubeletCertificate(nodeName, nodeIp, `${KUBERNETES_FOLDER}/pki`);
  }

  startKubelet(signal: AbortSignal): Promise<void> {
    return startKubelet(signal);
  }

  async waitForApi(signal: AbortSignal, host?: string): Promise<void> {
    const server = host === undefined ? [] : [`--server=https://${host}:${API_PORT}`];
    await this.#poll('the Kubernetes API', API_TIMEOUT_MS, signal, async () => {
      const answer = await this.#kubectl(['get', '--raw', '/readyz', ...server], signal);
      return answer.code === 0 ? undefined : answer.stderr.trim().slice(-300);
    });
  }

  async apply(objects: string, signal: AbortSignal): Promise<void> {
    await this.#poll('an apply', 60_000, signal, async () => {
      const answer = await this.#kubectl(
        ['apply', '--server-side', '--force-conflicts', '--field-manager=asterism-bootstrapper', '-f', '-'],
        signal,
        objects,
      );
      if (answer.code === 0) return undefined;
      const said = answer.stderr.trim().slice(-600);
      // What the API server judges wrong stays wrong; anything else may pass.
      if (/\b(invalid|Invalid|error parsing|Forbidden|strict decoding|no matches for kind)\b/.test(said)) {
        throw new AsterismError('ERR_APPLY', `the API server refuses an object: ${said}`);
      }
      return said;
    });
  }

  async manifests(): Promise<readonly Manifest[]> {
    const folder = this.#options.manifests;
    const names = (await readdir(folder)).filter((name) => name.endsWith('.yaml')).sort();
    return Promise.all(
      names.map(async (name) => ({
        name,
        kind: NETWORK_MANIFEST.test(name) ? ('network' as const) : ('service' as const),
        yaml: await readFile(`${folder}/${name}`, 'utf8'),
      })),
    );
  }

  async waitForDaemonSets(signal: AbortSignal): Promise<void> {
    await this.#poll('the DaemonSets', ROLLOUT_TIMEOUT_MS, signal, async () => {
      const answer = await this.#kubectl(['get', 'daemonsets', '--all-namespaces', '-o', 'json'], signal);
      if (answer.code !== 0) return answer.stderr.trim().slice(-300);
      const { items } = JSON.parse(answer.stdout) as { items: DaemonSet[] };
      const waiting = items.filter(
        ({ metadata, status }) =>
          status.observedGeneration !== metadata.generation ||
          status.desiredNumberScheduled === 0 ||
          (status.numberReady ?? 0) < status.desiredNumberScheduled ||
          (status.updatedNumberScheduled ?? 0) < status.desiredNumberScheduled,
      );
      if (waiting.length === 0 && items.length > 0) return undefined;
      return `not ready: ${waiting.map(({ metadata }) => metadata.name).join(', ')}`;
    });
  }

  async waitForNode(nodeName: string, signal: AbortSignal): Promise<void> {
    await this.#poll(`node ${nodeName}`, API_TIMEOUT_MS, signal, async () => {
      const answer = await this.#kubectl(
        ['get', 'node', nodeName, '-o', 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'],
        signal,
      );
      return answer.code === 0 && answer.stdout.trim() === 'True'
        ? undefined
        : answer.stderr.trim().slice(-300);
    });
  }

  #kubectl(args: readonly string[], signal: AbortSignal, stdin?: string) {
    return runProgram(KUBECTL, ['--kubeconfig', ADMIN_KUBECONFIG, '--request-timeout=20s', ...args], {
      timeoutMs: 40_000,
      signal,
      maxOutputBytes: 8 << 20,
      env: { PATH: PROGRAM_PATH, LC_ALL: 'C', HOME: '/root' },
      ...(stdin === undefined ? {} : { stdin: Buffer.from(stdin) }),
    });
  }

  /** Tries once a second until `attempt` answers undefined; its last answer says what is missing. */
  async #poll(
    what: string,
    timeoutMs: number,
    signal: AbortSignal,
    attempt: () => Promise<string | undefined>,
  ): Promise<void> {
    const end = Date.now() + timeoutMs;
    let said = '';
    while (true) {
      const missing = await attempt();
      if (missing === undefined) return;
      if (missing !== said) this.#options.log(`waiting for ${what}: ${missing}`);
      said = missing;
      if (Date.now() > end) {
        throw new UnreachableError(`${what} did not come within ${timeoutMs / 1000} s: ${missing}`);
      }
      await sleep(1000, undefined, { signal });
    }
  }
}

interface DaemonSet {
  readonly metadata: { readonly name: string; readonly generation: number };
  readonly status: {
    readonly observedGeneration?: number;
    readonly desiredNumberScheduled: number;
    readonly numberReady?: number;
    readonly updatedNumberScheduled?: number;
  };
}
