import type { Issuer, Verdict, Verifier } from '@asterism/attestation/types';
import { equal, isZero } from '@asterism/bytes/bytes';
import { AsterismError, PolicyError } from '@asterism/errors/errors';
import type { InstanceMetadata, Metadata } from '@asterism/metadata/types';
import { CLUSTER_ID_PCR, clusterIdPcr, type MachineTpm } from '@asterism/runtime/machine-tpm';
import { type AtlsClient, atlsClient } from './atls-client.ts';
import { API } from './gen/join_pb.ts';

/** NodePort of the JoinService on every control plane. */
export const JOIN_PORT = 30090;

/**
 * PCRs in which a node and the members that it trusts must be the same: what was booted. The others hold what
 * differs between machines (partition table, firmware of another make).
 */
export const COMPARED_PCRS = [4, 8, 9, 11, 12, 13] as const;

export interface JoinPeersOptions {
  readonly metadata: Metadata;
  readonly tpm: MachineTpm;
  readonly issuer: Issuer;
  /** Verifiers that enforce these values of the peer's PCRs. */
  readonly verifiersFor: (expected: ReadonlyMap<number, Uint8Array>) => readonly Verifier[];
  readonly port?: number;
  /** Milliseconds for the handshake and for the call. Default 30,000 each. */
  readonly timeoutMs?: number;
}

/** A JoinService that runs what this node runs and belongs to some cluster; which one, its answer must show. */
export interface JoinPeer {
  readonly client: AtlsClient<typeof API>;
  readonly verdict: Verdict;
  readonly timeoutMs: number;
}

/**
 * The JoinServices of a cluster's control planes, as a node that is no member yet (or not again) sees them: both
 * sides show evidence. The network and the metadata are the provider's, so an address proves nothing; a peer is
 * trusted because it booted what this node booted, and its answer because it gives the cluster id in its PCR 15.
 */
export class JoinPeers {
  readonly #options: JoinPeersOptions;

  constructor(options: JoinPeersOptions) {
    this.#options = options;
  }

  /** Addresses of all control planes but this node. */
  async addresses(self: InstanceMetadata, signal: AbortSignal): Promise<string[]> {
    const peers = await this.#options.metadata.list(signal);
    const addresses = peers.flatMap(({ role, vpcIp }) =>
      role === 'ControlPlane' && vpcIp !== undefined && vpcIp !== self.vpcIp ? [vpcIp] : [],
    );
    return [...new Set(addresses)].slice(0, 100);
  }

  /**
   * Connects to one JoinService, judges it, and calls it.
   * @param signal cuts the connection, also one in the making
   * @throws VerificationError | PolicyError the peer is not what this node is, or is no member of any cluster
   */
  async ask<T>(address: string, call: (peer: JoinPeer) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const { tpm, issuer, verifiersFor } = this.#options;
    const own = await tpm.readPcrs();
    const expected = new Map<number, Uint8Array>();
    for (const index of COMPARED_PCRS) {
      const value = own.get(index);
      if (value === undefined) throw new AsterismError('ERR_TPM_PCR', `the TPM has no SHA-256 PCR ${index}`);
      expected.set(index, value);
    }
    const timeoutMs = this.#options.timeoutMs ?? 30_000;
    const client = atlsClient(API, {
      host: address,
      port: this.#options.port ?? JOIN_PORT,
      issuer,
      verifiers: verifiersFor(expected),
      handshakeTimeoutMs: timeoutMs,
      callTimeoutMs: timeoutMs,
    });
    const cut = (): void => client.close();
    signal?.addEventListener('abort', cut, { once: true });
    try {
      signal?.throwIfAborted();
      const verdict = await client.peer();
      if (verdict === undefined)
        throw new AsterismError('ERR_JOIN_PEER', 'the connection has no verified peer');
      const pcr = verdict.pcrs.get(CLUSTER_ID_PCR);
      if (pcr === undefined || isZero(pcr)) {
        throw new PolicyError(
          'ERR_PEER_NOT_MEMBER',
          `the node at ${address} is no member of a cluster (PCR 15)`,
        );
      }
      return await call({ client, verdict, timeoutMs });
    } finally {
      signal?.removeEventListener('abort', cut);
      client.close();
    }
  }
}

/**
 * Whether the peer's verified quote carries this cluster's id: whoever gives keys of a cluster must be in it.
 * @throws PolicyError ERR_PEER_CLUSTER
 */
export function checkPeerCluster(verdict: Verdict, clusterId: Uint8Array): void {
  const pcr = verdict.pcrs.get(CLUSTER_ID_PCR);
  if (pcr === undefined || !equal(pcr, clusterIdPcr(clusterId))) {
    throw new PolicyError(
      'ERR_PEER_CLUSTER',
      'the peer gave keys of another cluster than the one that its PCR 15 names; its answer is not used',
    );
  }
}
