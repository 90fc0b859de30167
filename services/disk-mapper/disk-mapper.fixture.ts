import { createHash } from 'node:crypto';
import { deriveKey } from '@asterism/crypto/derive';
import { ParseError } from '@asterism/errors/errors';
import type { KeyManager } from '@asterism/kms/types';
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

export const kmsUri = (master: Uint8Array): string =>
  `kms://cluster-kms?key=${Buffer.from(master).toString('hex')}`;

/** Derives keys as the cluster's KMS does. */
export async function openKms(uri: string): Promise<KeyManager> {
  const match = /^kms:\/\/cluster-kms\?key=([0-9a-f]{64})$/.exec(uri);
  if (match === null) throw new ParseError('not a KMS URI of this test');
  const master = Uint8Array.from(Buffer.from(match[1]!, 'hex'));
  return { getDek: async (id, length) => deriveKey(master, MASTER_SALT, id, length), close: async () => {} };
}
