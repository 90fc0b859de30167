import { readFile, rm } from 'node:fs/promises';
import { zero } from '@asterism/bytes/bytes';
import { DEK_PREFIX, MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import { DiskError } from '@asterism/disk/cryptsetup';
import { renderDiskKeyName } from '@asterism/disk/key-name';
import { type StateLayout, TEMPORARY_KEY_FILE } from '@asterism/disk/layout';
import { writeNodeState } from '@asterism/disk/node-state';
import { STATE_KEY_LENGTH, type StateDisk } from '@asterism/disk/state-disk';
import type { KeyHome } from '@asterism/kms/types';
import {
  API_PORT,
  AUDIT_POLICY,
  auditPolicy,
  IGNORED_PREFLIGHT,
  initConfiguration,
  KUBEADM_CONFIG,
} from '@asterism/kubernetes/kubeadm';
import { nodeRights } from '@asterism/kubernetes/node-rights';
import type { InstanceMetadata } from '@asterism/metadata/types';
import { StatusError } from '@asterism/rpc/status';
import { type MachineTpm, measureClusterId } from '@asterism/runtime/machine-tpm';
import { type ClusterFacts, clusterObjects } from './cluster-objects.ts';
import type { InitOrder } from './init-request.ts';
import type { KubernetesNode } from './kubernetes-node.ts';
import type { Phase } from './phases.ts';

/** The machine that is initialised. */
export interface InitMachine {
  readonly tpm: MachineTpm;
  readonly disk: StateDisk;
  readonly layout: StateLayout;
  readonly node: KubernetesNode;
  readonly attestationVariant: string;
  /** Default {@link TEMPORARY_KEY_FILE}. */
  readonly temporaryKeyFile?: string;
}

/** How the keys of a cluster come from its order. */
export interface Keys {
  open(order: InitOrder): Promise<KeyHome>;
  /** Wrapped keys that wait for Kubernetes, as its objects. */
  storedKeys(order: InitOrder): Promise<object[]>;
  /** Drops those that wait. */
  forget(): Promise<void>;
  clusterId(measurementSecret: Uint8Array, measurementSalt: Uint8Array): Promise<Uint8Array>;
}

/** What one init knows from its first moment on. */
export interface InitContext {
  readonly machine: InitMachine;
  readonly order: InitOrder;
  readonly clusterId: Uint8Array;
  readonly measurementSalt: Uint8Array;
  /** JSON for join-config. */
  readonly measurements: string;
  readonly kms: KeyHome;
  readonly keys: Keys;
  readonly self: InstanceMetadata & { readonly vpcIp: string };
  readonly nodeName: string;
  /** host:port */
  readonly apiEndpoint: string;
}

type P = Phase<InitContext>;

/**
 * An init, in order. What may be lost by a kill between a phase's work and its entry in the journal is made up
 * for by the phase itself: each looks at what is there or does what changes nothing a second time.
 */
export const INIT_PHASES: readonly P[] = [
  // Before anything is final: a KMS that does not work shows here.
  { name: 'keys', run: keepMeasurementSecret },
  { name: 'node-lock', run: becomeMember },
  // Before the disk is marked as a member's: a member without its salt could never come back.
  { name: 'node-state', run: saveNodeState },
  { name: 'disk-rekey', run: (context) => rekeyToCluster(context) },
  {
    name: 'components',
    run: ({ machine, order }, signal) => machine.node.installComponents(order.components, signal),
  },
  { name: 'containerd', always: true, run: ({ machine }, signal) => machine.node.startContainerd(signal) },
  { name: 'images', run: ({ machine }, signal) => machine.node.importImages(signal) },
  { name: 'configuration', run: writeConfiguration },
  kubeadm('preflight', ['preflight', `--ignore-preflight-errors=${IGNORED_PREFLIGHT.join(',')}`]),
  kubeadm('certificates', ['certs', 'all']),
  {
    name: 'kubelet-certificate',
    run: ({ machine, nodeName, self }) => machine.node.signKubeletCertificate(nodeName, self.vpcIp),
  },
  kubeadm('kubeconfigs', ['kubeconfig', 'all']),
  kubeadm('etcd', ['etcd', 'local']),
  kubeadm('control-plane', ['control-plane', 'all']),
  kubeadm('kubelet-start', ['kubelet-start']),
  // kubeadm starts it in the phase before; after a reboot nobody else does.
  { name: 'kubelet', always: true, run: ({ machine }, signal) => machine.node.startKubelet(signal) },
  // Not kubeadm's own wait-control-plane, which takes no configuration file when it runs alone.
  { name: 'api', always: true, run: ({ machine }, signal) => machine.node.waitForApi(signal) },
  // The first phase whose client gives admin.conf its rights, hence before ours that use admin.conf.
  kubeadm('upload-config', ['upload-config', 'all']),
  kubeadm('mark-control-plane', ['mark-control-plane']),
  // Not kubeadm's bootstrap-token, which lets whoever has a token become any node.
  { name: 'node-rights', run: ({ machine }, signal) => machine.node.apply(nodeRights(), signal) },
  kubeadm('kubelet-finalize', ['kubelet-finalize', 'all']),
  kubeadm('addons', ['addon', 'all']),
  { name: 'network', run: (context, signal) => applyManifests(context, 'network', signal) },
  { name: 'node-ready', run: ({ machine, nodeName }, signal) => machine.node.waitForNode(nodeName, signal) },
  { name: 'cluster-objects', run: applyClusterObjects },
  { name: 'services', run: (context, signal) => applyManifests(context, 'service', signal) },
  { name: 'services-ready', run: ({ machine }, signal) => machine.node.waitForDaemonSets(signal) },
];

function kubeadm(name: string, phase: readonly string[], timeoutMs = 180_000): P {
  return {
    name,
    async run({ machine }, signal) {
      await machine.node.kubeadm(['init', 'phase', ...phase, '--config', KUBEADM_CONFIG], timeoutMs, signal);
    },
  };
}

async function keepMeasurementSecret({ kms, order }: InitContext, signal: AbortSignal): Promise<void> {
  if (order.measurementSecret === undefined) return;
  await kms.importDek(MEASUREMENT_SECRET_ID, order.measurementSecret, signal);
}

async function becomeMember({ machine, clusterId }: InitContext, signal: AbortSignal): Promise<void> {
  if (!(await measureClusterId(machine.tpm, clusterId, signal))) {
    throw new StatusError(
      'FAILED_PRECONDITION',
      'ERR_NODE_INITIALIZED',
      'PCR 15 of this node holds the id of another cluster: only a reboot with a new state disk frees it',
    );
  }
}

async function saveNodeState({ machine, measurementSalt }: InitContext): Promise<void> {
  await writeNodeState(machine.layout.nodeState, { role: 'ControlPlane', measurementSalt });
}

async function rekeyToCluster({ machine, kms }: InitContext): Promise<void> {
  const { uuid } = await machine.disk.header();
  const id = `${DEK_PREFIX}${uuid}`;
  const key = await kms.getDek(id, STATE_KEY_LENGTH);
  try {
    // Before the disk is a member's: from then on it can be recovered by what its header says.
    await machine.disk.setKeyToken({
      keys: [{ name: diskKeyOf(kms), envelope: await kms.wrapped(id) }],
      measurementSecret: await kms.wrapped(MEASUREMENT_SECRET_ID),
    });
    await rekeyStateDisk(machine.disk, machine.temporaryKeyFile ?? TEMPORARY_KEY_FILE, key);
  } finally {
    zero(key);
  }
}

function diskKeyOf({ generation }: KeyHome): string {
  return renderDiskKeyName({ generation, change: 0 });
}

/**
 * From the temporary passphrase to the cluster's key; then the disk is marked as a member's, and the temporary
 * passphrase, now useless, is removed.
 * @throws DiskError ERR_DISK_WRONG_KEY where the temporary passphrase is gone and `key` does not open the disk
 */
export async function rekeyStateDisk(
  disk: StateDisk,
  temporaryKeyFile: string,
  key: Uint8Array,
): Promise<void> {
  const temporary = await readFile(temporaryKeyFile).catch(() => undefined);
  if (temporary !== undefined) await disk.rekey(Uint8Array.from(temporary), key);
  else if (!(await disk.testKey(key))) {
    throw new DiskError(
      'ERR_DISK_WRONG_KEY',
      `${temporaryKeyFile} is gone and the cluster's key does not open the state disk; reboot with a new disk`,
    );
  }
  await disk.setInitialized(true);
  await rm(temporaryKeyFile, { force: true });
}

async function writeConfiguration(context: InitContext): Promise<void> {
  const { machine, order, self } = context;
  await machine.node.writeFile(AUDIT_POLICY, auditPolicy(), 0o600);
  const endpointHost = context.apiEndpoint.slice(0, context.apiEndpoint.lastIndexOf(':'));
  const configuration = initConfiguration({
    nodeName: context.nodeName,
    nodeIp: self.vpcIp,
    providerId: self.providerId,
    clusterName: order.clusterName,
    kubernetesVersion: order.kubernetesVersion,
    controlPlaneEndpoint: context.apiEndpoint,
    certSans: [endpointHost, ...order.certSans],
  });
  await machine.node.writeFile(KUBEADM_CONFIG, configuration, 0o600);
}

async function applyManifests(
  { machine }: InitContext,
  kind: 'network' | 'service',
  signal: AbortSignal,
): Promise<void> {
  for (const manifest of await machine.node.manifests()) {
    if (manifest.kind === kind) await machine.node.apply(manifest.yaml, signal);
  }
}

async function applyClusterObjects(context: InitContext, signal: AbortSignal): Promise<void> {
  const { machine, order, self } = context;
  const facts: ClusterFacts = {
    keyHome: {
      kmsUri: order.kmsUri,
      storageUri: order.storageUri,
      ...(order.kmsCredentials && { credentials: order.kmsCredentials }),
    },
    storedKeys: await context.keys.storedKeys(order),
    measurements: context.measurements,
    measurementSalt: context.measurementSalt,
    kubernetesVersion: order.kubernetesVersion,
    components: order.components,
    attestationVariant: machine.attestationVariant,
  };
  const objects = clusterObjects(facts, {
    diskUuid: (await machine.disk.header()).uuid,
    instanceName: self.name,
    attestationKeyId: await machine.tpm.attestationKeyId(signal),
    key: diskKeyOf(context.kms),
  });
  await machine.node.apply(objects, signal);
  // Copies that no rotation would find.
  await context.keys.forget();
}

/** The administrator's kubeconfig; made anew at each call, it is not kept on the node. */
export function adminKubeconfig({ machine, order }: InitContext, signal: AbortSignal): Promise<string> {
  return machine.node.kubeadm(
    [
      'kubeconfig',
      'user',
      '--config',
      KUBEADM_CONFIG,
      '--client-name',
      `${order.clusterName}-admin`,
      '--org',
      'kubeadm:cluster-admins',
      '--validity-period',
      '8760h',
    ],
    60_000,
    signal,
  );
}

/** host:port of the API, from what metadata says: a host alone or with a port of its own. */
export function apiEndpointOf(endpoint: string): string {
  return /:\d+$/.test(endpoint) ? endpoint : `${endpoint}:${API_PORT}`;
}
