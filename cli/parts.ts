import type { Verifier } from '@asterism/attestation/types';
import type { ClusterConfig } from '@asterism/config/cluster-config';
import type { ClusterState } from '@asterism/config/state';
import type { Machines, Options } from './machines.ts';

/** A node image that is in the cache. */
export interface NodeImage {
  /** As in the configuration: `sha256:` and the digest of the root file system. */
  readonly reference: string;
  readonly path: string;
  /** Expected PCRs, computed from the image's files. */
  readonly measurements: ClusterConfig['attestation']['qemuVtpm']['measurements'];
}

export interface NodeImages {
  /** The image of this release, where it is built and up to date. */
  built(): Promise<NodeImage | undefined>;
  /**
   * Builds it, or finds that nothing is to do.
   * @param options.refresh take Debian's packages as they are today
   */
  build(options: Options & { readonly refresh?: boolean }): Promise<NodeImage>;
}

/** A Kubernetes version of the catalogue. */
export interface KubernetesVersion {
  readonly version: string;
  readonly isDefault: boolean;
  /** Whether every component is in the cache. */
  readonly built: boolean;
  /** Where kubectl is, once it is built. */
  readonly kubectl: string;
  readonly components: readonly {
    readonly name: string;
    readonly installPath: string;
    /** `sha256:` and 64 hexadecimal digits; undefined until it is built. */
    readonly hash: string | undefined;
  }[];
}

export interface ComponentCheck {
  readonly name: string;
  readonly outcome: 'passed' | 'missing' | 'failed';
  readonly detail: string;
}

export interface KubernetesComponents {
  list(): Promise<readonly KubernetesVersion[]>;
  /**
   * Brings every component of a version into the cache: from a mirror where one is set, else built.
   * @param options.official take what the Kubernetes project publishes: `only` that, or `first`, building the rest
   * @param options.refresh take Debian's packages in images as they are today
   */
  provide(
    version: string,
    options: Options & { readonly official?: 'only' | 'first'; readonly refresh?: boolean },
  ): Promise<void>;
  /** Hashes what is in the cache. */
  verify(version: string): Promise<readonly ComponentCheck[]>;
  /** For the request of an init: with the addresses where the nodes of a cluster find them. */
  forNodes(state: ClusterState): Promise<
    readonly {
      readonly url: string;
      readonly hash: string;
      readonly installPath: string;
      readonly extract: boolean;
    }[]
  >;
}

/** Everything behind the commands that is more than this workspace's files. */
export interface Parts {
  readonly machines: Machines;
  readonly images: NodeImages;
  readonly components: KubernetesComponents;
  /**
   * @param identity SHA-256 PCR 15 (32 bytes) that a node must show; undefined where PCR 15 is judged elsewhere
   */
  verifier(config: ClusterConfig, identity: Uint8Array | undefined): Verifier;
  /** What evidence of the configuration's variant proves and what it does not, for a person. */
  trustStatement(config: ClusterConfig): string;
}

/** Loaded when a command runs, so that help is quick. */
export type LoadParts = () => Promise<Parts>;
