import { concat } from '@asterism/bytes/bytes';
import type { Measurements } from './measurements.ts';
import { withPcr } from './measurements.ts';

/** The PCR that says which cluster a machine belongs to. Zero: none yet. */
export const CLUSTER_ID_PCR = 15;

const sha256 = async (bytes: Uint8Array): Promise<Uint8Array> =>
  new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(bytes)));

/** PCR 15 (32 bytes) of a member: zeros extended with the SHA-256 of the cluster id. */
export async function clusterIdPcr(clusterId: Uint8Array): Promise<Uint8Array> {
  return sha256(concat(new Uint8Array(32), await sha256(clusterId)));
}

/** Measurements that say nothing of membership; the caller judges PCR 15 by itself. */
export function measurementsWithoutMembership(measurements: Measurements): Measurements {
  return withPcr(measurements, CLUSTER_ID_PCR, undefined);
}
