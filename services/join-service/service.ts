import { readFile } from 'node:fs/promises';
import type { Verdict } from '@asterism/attestation/types';
import { equal, isZero } from '@asterism/bytes/bytes';
import { AsterismError, BusyError, PolicyError } from '@asterism/errors/errors';
import type { KubernetesApi } from '@asterism/kubernetes/api';
import type { ClusterCa } from '@asterism/kubernetes/ca';
import { checkKubeletCsr } from '@asterism/kubernetes/csr';
import type { Metadata } from '@asterism/metadata/types';
import type { API } from '@asterism/rpc/gen/join_pb';
import type { CallContext, Handlers } from '@asterism/rpc/handlers';
import type { AuditEvent, AuditLog } from '@asterism/runtime/audit-log';
import { CLUSTER_ID_PCR } from '@asterism/runtime/machine-tpm';
import type { RateLimiter } from '@asterism/runtime/rate-limiter';
import { Refusals } from '@asterism/runtime/refusals';
import { Counter, type Registry } from 'prom-client';
import { takeTurn } from './control-plane-turn.ts';
import { type DataKeys, DiskKeys, isChange, tokenOf } from './disk-keys.ts';
import { bindDisk, type DiskOwner, ownDisk, readDiskUuid, recordKey } from './disks.ts';
import { machineAt, machineOf, type PeerMachine } from './peers.ts';
import { clusterVersion } from './versions.ts';

/** The node that this service runs on. */
export interface OwnNode {
  /** PCR 15 of this cluster's members, 32 bytes. */
  readonly clusterPcr: Uint8Array;
  readonly attestationKeyId: string;
}

export interface JoinServiceParts {
  readonly api: KubernetesApi;
  readonly metadata: Metadata;
  readonly dataKeys: DataKeys;
  readonly own: OwnNode;
  readonly ca: ClusterCa;
  /** Folder with the files that control planes share, /etc/kubernetes/pki. */
  readonly pki: string;
  readonly measurementSalt: Uint8Array;
  readonly limiter: RateLimiter;
  readonly audit: AuditLog;
  readonly registry: Registry;
}

const CERTIFICATE_MS = 365 * 24 * 3_600_000;
const API_PORT = 6443;
const CONTROL_PLANE_FILES = [
  'ca.crt',
  'ca.key',
  'sa.pub',
  'sa.key',
  'front-proxy-ca.crt',
  'front-proxy-ca.key',
  'etcd/ca.crt',
  'etcd/ca.key',
];

interface Caller {
  readonly machine: PeerMachine;
  readonly owner: DiskOwner;
}

/** Handlers of join.API. The connection's evidence was verified before; here is decided what this machine may have. */
export function joinService(parts: JoinServiceParts): Handlers<typeof API> {
  const { api, audit, ca, limiter, metadata, own } = parts;
  const keys = new DiskKeys(api, parts.dataKeys);
  const tickets = new Counter({
    name: 'asterism_join_tickets_total',
    help: 'Requests for tickets',
    labelNames: ['kind', 'outcome', 'reason'],
    registers: [parts.registry],
  });
  const refusals = new Refusals();

  function verdictOf({ peer }: CallContext): Verdict {
    limiter.take(peer.address);
    if (peer.verdict === undefined)
      throw new PolicyError('ERR_NO_EVIDENCE', 'the connection carries no verified evidence');
    return peer.verdict;
  }

  const ownerOf = ({ instanceName }: PeerMachine, { attestationKeyId }: Verdict): DiskOwner => ({
    instanceName,
    attestationKeyId,
  });

  /** A machine that is in no cluster, or not again since it booted. */
  async function newcomer(context: CallContext): Promise<Caller> {
    const verdict = verdictOf(context);
    const pcr = verdict.pcrs.get(CLUSTER_ID_PCR);
    if (pcr !== undefined && !isZero(pcr))
      throw new PolicyError('ERR_IS_MEMBER', 'the machine is a member since it booted: it gets no ticket');
    const machine = await machineAt(metadata, context.peer.address, context.signal);
    return { machine, owner: ownerOf(machine, verdict) };
  }

  /** A machine that runs as a member of this cluster. */
  async function member(context: CallContext): Promise<Caller> {
    const verdict = verdictOf(context);
    const pcr = verdict.pcrs.get(CLUSTER_ID_PCR);
    if (pcr === undefined || isZero(pcr) || !equal(pcr, own.clusterPcr))
      throw new PolicyError('ERR_NO_MEMBER', 'the machine is no member of this cluster');
    // What a node sends to itself comes with the address of one of its bridges: its TPM says who it is.
    const machine =
      verdict.attestationKeyId === own.attestationKeyId
        ? machineOf(await metadata.self(context.signal), context.peer.address)
        : await machineAt(metadata, context.peer.address, context.signal);
    return { machine, owner: ownerOf(machine, verdict) };
  }

  /** Runs one request; whatever comes of it is in the audit log before the answer leaves. */
  async function recorded<T>(
    kind: 'join' | 'rejoin' | 'disk-keys',
    context: CallContext,
    diskUuid: string,
    work: () => Promise<{ answer: T; grant: Partial<AuditEvent> }>,
  ): Promise<T> {
    const { address, verdict } = context.peer;
    const base = {
      event: kind,
      address,
      diskUuid: diskUuid.slice(0, 64),
      variant: verdict?.variant,
      attestationKeyId: verdict?.attestationKeyId,
      warnings: verdict?.checks
        .flatMap(({ name, outcome }) => (outcome === 'warning' ? [name] : []))
        .join(' '),
    };
    try {
      const { answer, grant } = await work();
      await audit.append({ ...base, ...grant, outcome: 'granted' });
      tickets.inc({ kind, outcome: 'granted', reason: '' });
      return answer;
    } catch (error) {
      const reason = error instanceof AsterismError ? error.code : 'unexpected';
      tickets.inc({ kind, outcome: 'refused', reason });
      // Who asks too often can be refused endlessly.
      const times = error instanceof BusyError ? refusals.count(address) : 1;
      if (times !== undefined) await audit.append({ ...base, outcome: 'refused', reason, times });
      throw error;
    }
  }

  return {
    issueJoinTicket(request, context) {
      return recorded('join', context, request.diskUuid, async () => {
        const { signal } = context;
        const { machine, owner } = await newcomer(context);
        if (request.isControlPlane !== machine.controlPlane) {
          throw new PolicyError(
            'ERR_ROLE',
            `${machine.instanceName} asks for another role than the provider gives it`,
          );
        }
        const publicKey = await checkKubeletCsr(request.certificateRequest, machine);
        const uuid = readDiskUuid(request.diskUuid);
        const binding = await bindDisk(api, uuid, owner, signal);
        if (machine.controlPlane) await takeTurn(api, machine.nodeName, signal);

        const version = await clusterVersion(api, signal);
        const [present, measurementSecret] = await Promise.all([
          keys.ofJoining(binding, machine.instanceName, signal),
          keys.measurementSecret(machine.instanceName, signal),
        ]);
        const kubeletCert = await ca.sign({
          subject: [{ O: ['system:nodes'] }, { CN: [`system:node:${machine.nodeName}`] }],
          publicKey,
          names: [
            { type: 'ip', value: machine.address },
            { type: 'dns', value: machine.nodeName },
          ],
          usages: ['client', 'server'],
          validForMs: CERTIFICATE_MS,
        });
        const controlPlaneFiles = machine.controlPlane ? await readControlPlaneFiles(parts.pki) : [];
        const endpoint = await metadata.loadBalancerEndpoint(signal);
        const answer = {
          stateDiskKey: present.dataKey,
          measurementSalt: parts.measurementSalt,
          measurementSecret: measurementSecret.dataKey,
          kubeletCert: Buffer.from(kubeletCert),
          apiServerEndpoint: endpoint.includes(':') ? endpoint : `${endpoint}:${API_PORT}`,
          discoveryTokenCaCertHash: ca.pin(),
          clusterCaCert: Buffer.from(ca.pem),
          controlPlaneFiles,
          kubernetesVersion: version.kubernetesVersion,
          kubernetesComponents: [...version.components],
          // A key that is already to be changed is the keeper's business, once the node runs.
          diskKeyToken: tokenOf({ present, next: undefined, measurementSecret }),
        };
        const grant = {
          node: machine.nodeName,
          role: machine.controlPlane ? 'ControlPlane' : 'Worker',
          keyId: uuid,
          keyName: present.name,
        };
        return { answer, grant };
      });
    },

    issueRejoinTicket(request, context) {
      return recorded('rejoin', context, request.diskUuid, async () => {
        const { signal } = context;
        const { machine, owner } = await newcomer(context);
        const uuid = readDiskUuid(request.diskUuid);
        const binding = await ownDisk(api, uuid, owner, signal);
        const [present, { next, missing }, measurementSecret] = await Promise.all([
          keys.present(binding, machine.instanceName, signal),
          keys.nextOrWhyNot(binding, machine.instanceName, signal),
          keys.measurementSecret(machine.instanceName, signal),
        ]);
        return {
          answer: {
            stateDiskKey: present.dataKey,
            measurementSecret: measurementSecret.dataKey,
            nextStateDiskKey: next?.dataKey ?? new Uint8Array(),
          },
          grant: {
            node: machine.nodeName,
            keyId: uuid,
            keyName: present.name,
            nextKeyName: next?.name,
            nextKeyMissing: missing,
          },
        };
      });
    },

    issueDiskKeys(request, context) {
      return recorded('disk-keys', context, request.diskUuid, async () => {
        const { signal } = context;
        const { machine, owner } = await member(context);
        const uuid = readDiskUuid(request.diskUuid);
        let binding = await ownDisk(api, uuid, owner, signal);
        if (request.proven !== '' && isChange(binding, request.proven)) {
          await audit.append({
            event: 'disk-key-changed',
            outcome: 'granted',
            node: machine.nodeName,
            keyId: uuid,
            keyName: request.proven,
          });
          binding = await recordKey(api, binding, request.proven, signal);
        }
        const [present, next, measurementSecret] = await Promise.all([
          keys.present(binding, machine.instanceName, signal),
          keys.next(binding, machine.instanceName, signal),
          keys.measurementSecret(machine.instanceName, signal),
        ]);
        return {
          answer: {
            key: present.dataKey,
            name: present.name,
            nextKey: next?.dataKey ?? new Uint8Array(),
            nextName: next?.name ?? '',
            diskKeyToken: tokenOf({ present, next, measurementSecret }),
          },
          grant: { node: machine.nodeName, keyId: uuid, keyName: present.name, nextKeyName: next?.name },
        };
      });
    },
  };
}

async function readControlPlaneFiles(pki: string): Promise<{ name: string; data: Uint8Array }[]> {
  return Promise.all(
    CONTROL_PLANE_FILES.map(async (name) => ({
      name,
      data: new Uint8Array(await readFile(`${pki}/${name}`)),
    })),
  );
}
