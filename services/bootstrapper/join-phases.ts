import { rm } from 'node:fs/promises';
import { zero } from '@asterism/bytes/bytes';
import { fromBase64 } from '@asterism/bytes/encoding';
import { TEMPORARY_KEY_FILE } from '@asterism/disk/layout';
import { writeNodeState } from '@asterism/disk/node-state';
import type { Component } from '@asterism/kubernetes/install';
import {
  AUDIT_POLICY,
  auditPolicy,
  IGNORED_PREFLIGHT,
  joinConfiguration,
  KUBEADM_CONFIG,
  KUBELET_CERT,
  KUBELET_KEY,
  KUBERNETES_FOLDER,
} from '@asterism/kubernetes/kubeadm';
import type { InstanceMetadata } from '@asterism/metadata/types';
import { StatusError } from '@asterism/rpc/status';
import { measureClusterId } from '@asterism/runtime/machine-tpm';
import { type InitMachine, rekeyStateDisk } from './init-phases.ts';
import { type JoinTicket, stateDiskKeyOf } from './join-ticket.ts';
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

/** A join, in order; as re-runnable as INIT_PHASES. */
export const JOIN_PHASES: readonly Phase<JoinContext>[] = [
  { name: 'node-lock', run: becomeMember },
  { name: 'node-state', run: saveNodeState },
  { name: 'disk-rekey', run: rekeyToCluster },
  { name: 'control-plane-files', run: writeControlPlaneFiles },
  { name: 'kubelet-certificate', run: writeKubeletCertificate },
  {
    name: 'components',
    run: ({ machine, ticket, self }, signal) =>
      machine.node.installComponents(componentsFor(self.role, ticket.components), signal),
  },
  { name: 'containerd', always: true, run: ({ machine }, signal) => machine.node.startContainerd(signal) },
  { name: 'images', run: ({ machine }, signal) => machine.node.importImages(signal) },
  { name: 'configuration', run: writeConfiguration },
  { name: 'kubeadm-join', run: kubeadmJoin },
  { name: 'kubelet', always: true, run: ({ machine }, signal) => machine.node.startKubelet(signal) },
];

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
    await rekeyStateDisk(machine.disk, machine.temporaryKeyFile ?? TEMPORARY_KEY_FILE, key);
  } finally {
    zero(key);
  }
}

async function writeControlPlaneFiles({ machine, ticket }: JoinContext): Promise<void> {
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
  const configuration = joinConfiguration({
    nodeName,
    nodeIp: self.vpcIp,
    providerId: self.providerId,
    apiServerEndpoint: ticket.apiServerEndpoint,
    token: ticket.token,
    caCertHash: ticket.caCertHash,
    controlPlane,
  });
  await machine.node.writeFile(KUBEADM_CONFIG, configuration, 0o600);
}

/** What kubeadm's preflight finds where an earlier attempt of this very join was killed. */
const LEFT_BY_AN_ATTEMPT = [
  'DirAvailable--etc-kubernetes-manifests',
  'DirAvailable--var-lib-etcd',
  'FileAvailable--etc-kubernetes-pki-ca.crt',
  'Port-10250',
];

async function kubeadmJoin({ machine, journal }: JoinContext, signal: AbortSignal): Promise<void> {
  const ignored: string[] = [...IGNORED_PREFLIGHT];
  if (journal.fact('join-tried') === undefined) await journal.setFact('join-tried', 'yes');
  else {
    ignored.push(...LEFT_BY_AN_ATTEMPT);
    // The kubelet's bootstrap begins anew: with half of its files kubeadm would stop at once.
    for (const name of ['kubelet.conf', 'bootstrap-kubelet.conf']) {
      await rm(`${KUBERNETES_FOLDER}/${name}`, { force: true });
    }
  }
  const args = ['join', '--config', KUBEADM_CONFIG, `--ignore-preflight-errors=${ignored.join(',')}`];
  await machine.node.kubeadm(args, 300_000, signal);
}
