import { createHash } from 'node:crypto';

/** What the bootstrapper and the disk-mapper need of the machine's TPM. */
export interface MachineTpm {
  /** SHA-256 PCRs 0 to 23. */
  readPcrs(signal?: AbortSignal): Promise<ReadonlyMap<number, Uint8Array>>;
  /** PCR_Event of PCR 15 with the cluster id (32 bytes), in every bank. */
  extendClusterId(clusterId: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** Hex SHA-256 of the attestation key's public area. */
  attestationKeyId(signal?: AbortSignal): Promise<string>;
}

export const CLUSTER_ID_PCR = 15;

/** What PCR 15 (SHA-256) of a member of a cluster reads: SHA-256(0^32 || SHA-256(cluster id)). */
export function clusterIdPcr(clusterId: Uint8Array): Uint8Array {
  const event = createHash('sha256').update(clusterId).digest();
  return new Uint8Array(createHash('sha256').update(new Uint8Array(32)).update(event).digest());
}
