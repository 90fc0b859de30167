import type { ClusterState } from '@asterism/config/state';

/** Which cluster is meant: name and uid as in the state file. */
export interface ClusterReference {
  readonly name: string;
  readonly uid: string;
}

export interface MachinesSpec extends ClusterReference {
  readonly image: string;
  readonly kubernetesVersion: string;
  readonly controlPlaneNodes: number;
  readonly workerNodes: number;
  readonly stateDiskMiB: number;
  /** Whether nodes may open connections to the host and beyond it. */
  readonly egress: boolean;
  /** bcrypt hash of the init secret, for the nodes' metadata. */
  readonly initSecretHash: string;
  /** Folder with the cluster's files, noted beside the machines. */
  readonly workspace: string;
}

export interface MachineStatus {
  readonly name: string;
  readonly running: boolean;
  /** Whether the state disk is opened through device-mapper; false where the kernel has none. */
  readonly stateDiskMapped: boolean;
}

/** A cluster whose machines are here, as found without its workspace. */
export interface FoundCluster {
  readonly uid: string;
  /** Undefined where the machines' own record is damaged. */
  readonly name: string | undefined;
  readonly nodes: { readonly running: number; readonly total: number };
  /** Undefined where it was never noted. */
  readonly workspace: string | undefined;
}

export interface Options {
  readonly signal: AbortSignal;
  /** Told what is being done. */
  readonly onDetail: (text: string) => void;
}

/** What the commands need of a provider. */
export interface Machines {
  /** Holds the machines' disks. */
  readonly folder: string;
  /** @throws AsterismError (ERR_PERMISSION) where this user may not make and remove machines */
  checkPermission(): void;
  /** Every cluster whose machines are here. */
  list(): Promise<readonly FoundCluster[]>;
  /** Makes and starts machines. Where it throws, {@link destroy} removes what it had made. */
  create(spec: MachinesSpec, options: Options): Promise<Pick<ClusterState, 'endpoint' | 'nodes'>>;
  /** Removes whatever is there of a cluster; nothing is fine too. */
  destroy(cluster: ClusterReference, options: Options): Promise<void>;
  /** @throws AsterismError (ERR_NO_CLUSTER) where nothing is known of its machines */
  status(cluster: ClusterReference): Promise<readonly MachineStatus[]>;
  start(cluster: ClusterReference, node: string, options: Options): Promise<void>;
  /** Shuts a machine down cleanly. Its state disk and TPM state stay. */
  stop(cluster: ClusterReference, node: string, options: Options): Promise<void>;
  /** Runs a program in a node, on this terminal. @returns its exit code */
  exec(
    cluster: ClusterReference,
    node: string,
    argv: readonly string[],
    signal: AbortSignal,
  ): Promise<number>;
  /** Writes what a node has logged to standard output, and with `follow` goes on until aborted. */
  logs(cluster: ClusterReference, node: string, follow: boolean, signal: AbortSignal): Promise<void>;
}
