import { readFile } from 'node:fs/promises';
import type { Verdict } from '@asterism/attestation/types';
import { AsterismError, BusyError, PolicyError } from '@asterism/errors/errors';
import type { KubernetesApi } from '@asterism/kubernetes/api';
import type { ClusterCa } from '@asterism/kubernetes/ca';
import { checkKubeletCsr } from '@asterism/kubernetes/csr';
import type { Metadata } from '@asterism/metadata/types';
import type { API } from '@asterism/rpc/gen/join_pb';
import type { CallContext, Handlers } from '@asterism/rpc/handlers';
import type { AuditEvent, AuditLog } from '@asterism/runtime/audit-log';
import type { RateLimiter } from '@asterism/runtime/rate-limiter';
import { Refusals } from '@asterism/runtime/refusals';
import { Counter, type Registry } from 'prom-client';
import { takeTurn } from './control-plane-turn.ts';
import { bindDisk, checkDiskOwner, type DiskOwner, readDiskUuid } from './disks.ts';
import { machineAt, type PeerMachine } from './peers.ts';
import { clusterVersion } from './versions.ts';

/** Data keys by id, from the KeyService. */
export type DataKeys = (id: string, length: number, signal: AbortSignal) => Promise<Uint8Array>;

export interface JoinServiceParts {
  readonly api: KubernetesApi;
  readonly metadata: Metadata;
  readonly dataKeys: DataKeys;
  readonly ca: ClusterCa;
  /** Folder with the files that control planes share, /etc/kubernetes/pki. */
  readonly pki: string;
  readonly measurementSalt: Uint8Array;
  readonly limiter: RateLimiter;
  readonly audit: AuditLog;
  readonly registry: Registry;
}

const KEY_BYTES = 32;
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
  const { api, audit, ca, dataKeys, limiter, metadata } = parts;
  const tickets = new Counter({
    name: 'asterism_join_tickets_total',
    help: 'Requests for tickets',
    labelNames: ['kind', 'outcome', 'reason'],
    registers: [parts.registry],
  });
  const refusals = new Refusals();

  async function identify({ peer, signal }: CallContext): Promise<Caller> {
    limiter.take(peer.address);
    const verdict: Verdict | undefined = peer.verdict;
    if (verdict === undefined)
      throw new PolicyError('ERR_NO_EVIDENCE', 'the connection carries no verified evidence');
    const machine = await machineAt(metadata, peer.address, signal);
    return {
      machine,
      owner: { instanceName: machine.instanceName, attestationKeyId: verdict.attestationKeyId },
    };
  }

  /** Runs one request; whatever comes of it is in the audit log before the answer leaves. */
  async function recorded<T>(
    kind: 'join' | 'rejoin',
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
        const { machine, owner } = await identify(context);
        if (request.isControlPlane !== machine.controlPlane) {
          throw new PolicyError(
            'ERR_ROLE',
            `${machine.instanceName} asks for another role than the provider gives it`,
          );
        }
        const publicKey = await checkKubeletCsr(request.certificateRequest, machine);
        const uuid = readDiskUuid(request.diskUuid);
        await bindDisk(api, uuid, owner, signal);
        if (machine.controlPlane) await takeTurn(api, machine.nodeName, signal);

        const version = await clusterVersion(api, signal);
        const [stateDiskKey, measurementSecret] = await Promise.all([
          dataKeys(uuid, KEY_BYTES, signal),
          dataKeys('measurementSecret', KEY_BYTES, signal),
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
          stateDiskKey,
          measurementSalt: parts.measurementSalt,
          measurementSecret,
          kubeletCert: Buffer.from(kubeletCert),
          apiServerEndpoint: endpoint.includes(':') ? endpoint : `${endpoint}:${API_PORT}`,
          discoveryTokenCaCertHash: ca.pin(),
          clusterCaCert: Buffer.from(ca.pem),
          controlPlaneFiles,
          kubernetesVersion: version.kubernetesVersion,
          kubernetesComponents: [...version.components],
        };
        const grant = {
          node: machine.nodeName,
          role: machine.controlPlane ? 'ControlPlane' : 'Worker',
          keyId: uuid,
        };
        return { answer, grant };
      });
    },

    issueRejoinTicket(request, context) {
      return recorded('rejoin', context, request.diskUuid, async () => {
        const { signal } = context;
        const { machine, owner } = await identify(context);
        const uuid = readDiskUuid(request.diskUuid);
        await checkDiskOwner(api, uuid, owner, signal);
        const [stateDiskKey, measurementSecret] = await Promise.all([
          dataKeys(uuid, KEY_BYTES, signal),
          dataKeys('measurementSecret', KEY_BYTES, signal),
        ]);
        return {
          answer: { stateDiskKey, measurementSecret },
          grant: { node: machine.nodeName, keyId: uuid },
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
