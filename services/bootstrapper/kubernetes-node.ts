import type { Component } from '@asterism/kubernetes/install';

/** The programs and files that make this machine a Kubernetes node. Every method may be called again after a kill. */
export interface KubernetesNode {
  installComponents(components: readonly Component[], signal: AbortSignal): Promise<void>;
  startContainerd(signal: AbortSignal): Promise<void>;
  /** From the components' images and from the node image's own. */
  importImages(signal: AbortSignal): Promise<void>;
  /** Writes a configuration file of the control plane or of kubeadm. */
  writeFile(path: string, content: string, mode: number): Promise<void>;
  hasFile(path: string): Promise<boolean>;
  /** Removes files, where they are there. */
  removeFiles(paths: readonly string[]): Promise<void>;
  /** Waits until another program has made a file. */
  waitForFile(path: string, signal: AbortSignal): Promise<void>;
  /** Runs kubeadm; its output goes to the log. @returns its standard output */
  kubeadm(args: readonly string[], timeoutMs: number, signal: AbortSignal): Promise<string>;
  signKubeletCertificate(nodeName: string, nodeIp: string): Promise<void>;
  startKubelet(signal: AbortSignal): Promise<void>;
  /** Waits until the cluster's API answers through its endpoint, or by the API server at `host`. */
  waitForApi(signal: AbortSignal, host?: string): Promise<void>;
  /** Server-side apply of objects (JSON or YAML text). */
  apply(objects: string, signal: AbortSignal): Promise<void>;
  /** The manifests of the node image: the network first, then the services; in the order of application. */
  manifests(): Promise<readonly Manifest[]>;
  /** Waits until every DaemonSet has all its pods ready. */
  waitForDaemonSets(signal: AbortSignal): Promise<void>;
  /** Whether a node of this name is registered and its kubelet is ready. */
  waitForNode(nodeName: string, signal: AbortSignal): Promise<void>;
}

export interface Manifest {
  readonly name: string;
  readonly kind: 'network' | 'service';
  readonly yaml: string;
}
