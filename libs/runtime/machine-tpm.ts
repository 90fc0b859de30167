import { createHash } from 'node:crypto';
import { equal, isZero } from '@asterism/bytes/bytes';

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

/**
 * Marks this machine as a member of a cluster: PCR 15 is extended exactly once, also where an earlier run was killed
 * right after it.
 * @returns whether PCR 15 is now this cluster's; false where it holds another id
 */
export async function measureClusterId(
  tpm: MachineTpm,
  clusterId: Uint8Array,
  signal?: AbortSignal,
): Promise<boolean> {
  const before = (await tpm.readPcrs(signal)).get(CLUSTER_ID_PCR);
  if (before !== undefined && isZero(before)) await tpm.extendClusterId(clusterId, signal);
  const after = (await tpm.readPcrs(signal)).get(CLUSTER_ID_PCR);
  return after !== undefined && equal(after, clusterIdPcr(clusterId));
}
