import {
  BOOTSTRAP_KUBECONFIG,
  KUBELET_CREDENTIAL,
  KUBELET_KUBECONFIG,
  KUBERNETES_FOLDER,
} from '@asterism/kubernetes/kubeadm';

const MANIFESTS = ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'etcd'].map(
  (name) => `${KUBERNETES_FOLDER}/manifests/${name}.yaml`,
);
const ETCD_MANIFEST = MANIFESTS[3]!;
const CERTIFICATES = ['apiserver', 'front-proxy-client', 'etcd/server', 'etcd/healthcheck-client'];
const HALF = 'half a file';

/**
 * What `kubeadm join` and the kubelet refuse, need and leave behind, for tests of joins that are cut off; after the
 * sources of Kubernetes 1.37 (cmd/kubeadm, pkg/kubelet/certificate/bootstrap).
 */
export class FakeKubeadm {
  readonly #files: Map<string, string>;
  readonly #moment: (name: string) => Promise<void>;
  kubeletRuns = false;
  nodeReady = false;
  etcd: 'none' | 'learner' | 'voting' = 'none';

  /** @param moment called wherever a kill may come; kills by throwing */
  constructor(files: Map<string, string>, moment: (name: string) => Promise<void>) {
    this.#files = files;
    this.#moment = moment;
  }

  /** To be the hook of a RecordingNode. */
  async step(step: string): Promise<void> {
    await this.#moment(`before ${step}`);
    const act = this.#acts[step.replace(/ \/etc\/kubernetes\/kubeadm.yaml$/, '')];
    await act?.();
    await this.#moment(`after ${step}`);
  }

  /** The kubelet starts what the manifests say, and writes its kubeconfig before it has a certificate. */
  #startKubelet(): void {
    this.kubeletRuns = true;
    if (!this.#files.has(BOOTSTRAP_KUBECONFIG) && !this.#files.has(KUBELET_CREDENTIAL))
      throw new Error('the kubelet has no credentials');
    this.#files.set(KUBELET_KUBECONFIG, 'names its certificate');
    this.#getReady();
  }

  /** As early as can be. The kubelet of a control plane asks the API server beside it, which needs its etcd. */
  #getReady(): void {
    const controlPlane = this.#files.has(MANIFESTS[0]!);
    if (!this.kubeletRuns || (controlPlane && this.etcd !== 'voting')) return;
    this.#files.set(KUBELET_CREDENTIAL, 'whole');
    this.nodeReady = true;
  }

  async #write(path: string): Promise<void> {
    this.#files.set(path, HALF);
    await this.#moment(`half of ${path}`);
    this.#files.set(path, 'whole');
  }

  readonly #acts: Readonly<Record<string, () => Promise<void>>> = {
    'kubeadm join phase preflight': async () => {
      const found = [...MANIFESTS, KUBELET_KUBECONFIG, BOOTSTRAP_KUBECONFIG].find((path) =>
        this.#files.has(path),
      );
      if (found !== undefined) throw new Error(`FileAvailable--${found}`);
      if (this.kubeletRuns) throw new Error('Port-10250 is in use');
    },
    'kubeadm join phase control-plane-prepare all': async () => {
      for (const name of CERTIFICATES) {
        const [key, cert] = ['key', 'crt'].map((type) => `${KUBERNETES_FOLDER}/pki/${name}.${type}`);
        await this.#writeIfAbsent(key!, cert!);
      }
      for (const name of ['admin', 'controller-manager', 'scheduler'])
        await this.#writeIfAbsent(`${KUBERNETES_FOLDER}/${name}.conf`);
      for (const path of MANIFESTS) if (path !== ETCD_MANIFEST) await this.#write(path);
    },
    'kubeadm join phase kubelet-start': async () => {
      if (this.nodeReady) throw new Error('a Node with this name and status "Ready" already exists');
      await this.#write(BOOTSTRAP_KUBECONFIG);
      this.#startKubelet();
    },
    kubelet: async () => this.#startKubelet(),
    'kubeadm join phase etcd-join': async () => {
      if (this.etcd === 'voting' && !this.kubeletRuns) throw new Error('etcd has no quorum');
      if (this.etcd === 'none') this.etcd = 'learner';
      await this.#moment('a learner');
      await this.#write(ETCD_MANIFEST);
      if (!this.kubeletRuns) throw new Error('the etcd member is not started');
      this.etcd = 'voting';
      this.#getReady();
    },
    [`wait for ${KUBELET_CREDENTIAL}`]: async () => {
      if (!this.#files.has(KUBELET_CREDENTIAL)) throw new Error('no API server signs a certificate');
    },
    'kubeadm join phase control-plane-join mark-control-plane': async () => {
      if (!this.nodeReady) throw new Error('there is no such Node');
    },
  };

  /** kubeadm takes what is there if it is whole, and fails where it is not. */
  async #writeIfAbsent(...paths: readonly string[]): Promise<void> {
    const found = paths.map((path) => this.#files.get(path));
    if (found.every((content) => content === undefined)) for (const path of paths) await this.#write(path);
    else if (found.some((content) => content !== 'whole')) throw new Error(`failure loading ${paths[0]}`);
  }
}
