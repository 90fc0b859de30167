import { createHash } from 'node:crypto';
import { parseClusterKmsUri, renderClusterKmsUri } from '@asterism/kms/cluster-uri';
import { clusterHome } from '@asterism/kms/open';
import type { KeyHome } from '@asterism/kms/types';
import type { MachineTpm } from '@asterism/runtime/machine-tpm';

// Parts for tests of this service: disks are real LUKS2 images, these stand in for the machine and for the KMS.

export const MASTER_SALT = new Uint8Array(32).fill(1);

/** PCR 15 in memory, extended as a TPM does. */
export function memoryTpm(): MachineTpm & { pcr: Uint8Array } {
  return {
    pcr: new Uint8Array(32),
    async readPcrs() {
      return new Map([[15, this.pcr]]);
    },
    async extendClusterId(id) {
      const event = createHash('sha256').update(id).digest();
      this.pcr = new Uint8Array(createHash('sha256').update(this.pcr).update(event).digest());
    },
    attestationKeyId: async () => '',
  };
}

export const kmsUri = (master: Uint8Array): string => renderClusterKmsUri({ key: master, salt: MASTER_SALT });

/** Derives keys as the cluster's KMS does. */
export async function openHome({ kmsUri }: { kmsUri: string }): Promise<KeyHome> {
  return clusterHome({ ...parseClusterKmsUri(kmsUri), salt: MASTER_SALT });
}
