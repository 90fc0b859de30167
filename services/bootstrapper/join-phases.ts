import { zero } from '@asterism/bytes/bytes';
import { fromBase64 } from '@asterism/bytes/encoding';
import { TEMPORARY_KEY_FILE } from '@asterism/disk/layout';
import { writeNodeState } from '@asterism/disk/node-state';
import type { Component } from '@asterism/kubernetes/install';
import {
  AUDIT_POLICY,
  auditPolicy,
  BOOTSTRAP_KUBECONFIG,
  DISCOVERY_KUBECONFIG,
  discoveryKubeconfig,
  IGNORED_PREFLIGHT,
  joinConfiguration,
  KUBEADM_CONFIG,
  KUBELET_CERT,
  KUBELET_CREDENTIAL,
  KUBELET_KEY,
  KUBELET_KUBECONFIG,
  KUBERNETES_FOLDER,
} from '@asterism/kubernetes/kubeadm';
import type { InstanceMetadata } from '@asterism/metadata/types';
import { StatusError } from '@asterism/rpc/status';
import { measureClusterId } from '@asterism/runtime/machine-tpm';
import { type InitMachine, rekeyStateDisk } from './init-phases.ts';
import { diskKeyTokenOf, type JoinTicket, stateDiskKeyOf } from './join-ticket.ts';
import type { Journal } from './journal.ts';
import type { Phase } from './phases.ts';

/** What a join knows once it has its ticket. */
export interface JoinContext {
  readonly machine: InitMachine;
  readonly ticket: JoinTicket;
  readonly clusterId: Uint8Array;
  readonly self: InstanceMetadata & { readonly vpcIp: string };
  readonly nodeName: string;
  readonly journal: Journal;
}

type P = Phase<JoinContext>;

/** The cluster's CA is written before kubeadm runs, at once and as a whole. */
const IGNORED_AT_JOIN = [...IGNORED_PREFLIGHT, 'FileAvailable--etc-kubernetes-pki-ca.crt'];
/** In the journal: this node is about to become a member of etcd, or is one. */
const ETCD_MEMBER = 'etcd-member';

/** A join, in order; as re-runnable as INIT_PHASES. */
export function joinPhases(role: InstanceMetadata['role']): readonly P[] {
  return PHASES.filter(({ controlPlane }) => controlPlane !== true || role === 'ControlPlane');
}

const PHASES: readonly (P & { readonly controlPlane?: true })[] = [
  { name: 'node-lock', run: becomeMember },
  { name: 'node-state', run: saveNodeState },
  { name: 'disk-rekey', run: rekeyToCluster },
  { name: 'cluster-files', run: writeClusterFiles },
  { name: 'kubelet-certificate', run: writeKubeletCertificate },
  {
    name: 'components',
    run: ({ machine, ticket, self }, signal) =>
      machine.node.installComponents(componentsFor(self.role, ticket.components), signal),
  },
  { name: 'containerd', always: true, run: ({ machine }, signal) => machine.node.startContainerd(signal) },
  { name: 'images', run: ({ machine }, signal) => machine.node.importImages(signal) },
  { name: 'configuration', run: writeConfiguration },
  // Writes nothing, and comes before all that write what it refuses: it never finds what a killed attempt left.
  kubeadm('preflight', ['preflight', `--ignore-preflight-errors=${IGNORED_AT_JOIN.join(',')}`]),
  { name: 'control-plane-prepare', controlPlane: true, run: prepareControlPlane },
  { name: 'kubelet-start', run: startKubeletFirst },
  // kubeadm starts it in the phase before. After a reboot nobody else does, and without this node's member of etcd,
  // which the kubelet starts, the cluster may have no quorum for the phase that follows.
  { name: 'kubelet', always: true, run: ({ machine }, signal) => machine.node.startKubelet(signal) },
  { name: 'etcd-join', controlPlane: true, run: joinEtcd },
  { name: 'kubelet-credential', run: waitForKubeletCredential },
  { ...kubeadm('mark-control-plane', ['control-plane-join', 'mark-control-plane']), controlPlane: true },
  {
    name: 'api',
    controlPlane: true,
    always: true,
    run: ({ machine, self }, signal) => machine.node.waitForApi(signal, self.vpcIp),
  },
];

function kubeadm(name: string, phase: readonly string[], timeoutMs = 180_000): P {
  return { name, run: (context, signal) => runKubeadm(context, phase, timeoutMs, signal) };
}

async function runKubeadm(
  { machine }: JoinContext,
  phase: readonly string[],
  timeoutMs: number,
  signal: AbortSignal,
): Promise<void> {
  await machine.node.kubeadm(['join', 'phase', ...phase, '--config', KUBEADM_CONFIG], timeoutMs, signal);
}

/** Images of what runs on control planes only: two thirds of the bytes. */
const CONTROL_PLANE_IMAGE = /\/(etcd|kube-(apiserver|controller-manager|scheduler))\.tar$/;

function componentsFor(
  role: InstanceMetadata['role'],
  components: readonly Component[],
): readonly Component[] {
  return role === 'ControlPlane'
    ? components
    : components.filter(({ installPath }) => !CONTROL_PLANE_IMAGE.test(installPath));
}

async function becomeMember({ machine, clusterId }: JoinContext, signal: AbortSignal): Promise<void> {
  if (!(await measureClusterId(machine.tpm, clusterId, signal))) {
    throw new StatusError(
      'FAILED_PRECONDITION',
      'ERR_NODE_INITIALIZED',
      'PCR 15 holds the id of another cluster',
    );
  }
}

async function saveNodeState({ machine, ticket, self }: JoinContext): Promise<void> {
  await writeNodeState(machine.layout.nodeState, {
    role: self.role === 'ControlPlane' ? 'ControlPlane' : 'Worker',
    measurementSalt: fromBase64(ticket.measurementSalt),
  });
}

async function rekeyToCluster({ machine, ticket }: JoinContext): Promise<void> {
  const key = stateDiskKeyOf(ticket);
  try {
    // Before the disk is marked as a member's, which may have to be recovered.
    await machine.disk.setKeyToken(diskKeyTokenOf(ticket));
    await rekeyStateDisk(machine.disk, machine.temporaryKeyFile ?? TEMPORARY_KEY_FILE, key);
  } finally {
    zero(key);
  }
}

async function writeClusterFiles({ machine, ticket }: JoinContext): Promise<void> {
  await machine.node.writeFile(`${KUBERNETES_FOLDER}/pki/ca.crt`, ticket.caCert, 0o644);
  for (const { name, data } of ticket.files) {
    const text = new TextDecoder().decode(fromBase64(data));
    await machine.node.writeFile(`${KUBERNETES_FOLDER}/pki/${name}`, text, 0o600);
  }
}

async function writeKubeletCertificate({ machine, ticket }: JoinContext): Promise<void> {
  await machine.node.writeFile(KUBELET_KEY, ticket.kubeletKey, 0o600);
  await machine.node.writeFile(KUBELET_CERT, ticket.kubeletCert, 0o644);
}

async function writeConfiguration({ machine, ticket, self, nodeName }: JoinContext): Promise<void> {
  const controlPlane = self.role === 'ControlPlane';
  if (controlPlane) await machine.node.writeFile(AUDIT_POLICY, auditPolicy(), 0o600);
  await machine.node.writeFile(
    DISCOVERY_KUBECONFIG,
    discoveryKubeconfig(ticket.apiServerEndpoint, ticket.caCert),
    0o600,
  );
  const configuration = joinConfiguration({
    nodeName,
    nodeIp: self.vpcIp,
    providerId: self.providerId,
    controlPlane,
  });
  await machine.node.writeFile(KUBEADM_CONFIG, configuration, 0o600);
}

/** What kubeadm makes in control-plane-prepare: certificates, then kubeconfigs. */
const PREPARED = [
  ...[
    'apiserver',
    'apiserver-kubelet-client',
    'apiserver-etcd-client',
    'front-proxy-client',
    'etcd/server',
    'etcd/peer',
    'etcd/healthcheck-client',
  ].flatMap((name) => [`${KUBERNETES_FOLDER}/pki/${name}.crt`, `${KUBERNETES_FOLDER}/pki/${name}.key`]),
  ...['admin', 'controller-manager', 'scheduler'].map((name) => `${KUBERNETES_FOLDER}/${name}.conf`),
];

async function prepareControlPlane(context: JoinContext, signal: AbortSignal): Promise<void> {
  // A key without its certificate, or half a file, would stop kubeadm at every further try; nothing uses them yet.
  await context.machine.node.removeFiles(PREPARED);
  await runKubeadm(context, ['control-plane-prepare', 'all'], 180_000, signal);
}

async function startKubeletFirst(context: JoinContext, signal: AbortSignal): Promise<void> {
  // The kubelet writes it when it first starts, so all that this phase does is done. It must not be done again:
  // kubeadm refuses where the node is Ready already.
  if (await context.machine.node.hasFile(KUBELET_KUBECONFIG)) return;
  await runKubeadm(context, ['kubelet-start'], 180_000, signal);
}

/**
 * Adds this node to etcd as a learner, starts it, and makes it a voting member. kubeadm looks at the list of members
 * before each step, so that doing it again goes on where it stopped.
 */
async function joinEtcd(context: JoinContext, signal: AbortSignal): Promise<void> {
  await context.journal.setFact(ETCD_MEMBER, 'perhaps');
  await runKubeadm(context, ['etcd-join'], 300_000, signal);
}

/** Whether etcd may count on this node: of two members both are needed, so its disk must not be given up any more. */
export function mayBeEtcdMember(journal: Journal): boolean {
  return journal.fact(ETCD_MEMBER) !== undefined;
}

/** From here on the kubelet renews its certificate by itself. The copy of the ticket's key that kubeadm made is removed. */
async function waitForKubeletCredential({ machine }: JoinContext, signal: AbortSignal): Promise<void> {
  await machine.node.waitForFile(KUBELET_CREDENTIAL, signal);
  await machine.node.removeFiles([BOOTSTRAP_KUBECONFIG]);
}
