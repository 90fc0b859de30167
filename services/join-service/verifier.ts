import { type Measurements, withPcr } from '@asterism/attestation/measurements';
import type { Verdict, Verifier } from '@asterism/attestation/types';
import { QemuVtpmVerifier } from '@asterism/attestation/variants/qemu-vtpm/verifier';
import { PolicyError } from '@asterism/errors/errors';
import { CLUSTER_ID_PCR } from '@asterism/runtime/machine-tpm';

/**
 * Lets in newcomers, who meet `join-config` with PCR 15 zero, and members, who meet it with PCR 15 of this cluster.
 * Members of other clusters stay outside. What a caller may ask for as the one or the other, the handlers decide.
 */
export class JoinVerifier implements Verifier {
  readonly #newcomers: QemuVtpmVerifier;
  readonly #members: QemuVtpmVerifier;
  readonly #clusterPcr: Uint8Array;

  /**
   * @param measurements with PCR 15 enforced as zero
   * @param clusterPcr PCR 15 of this cluster's members, 32 bytes
   */
  constructor(measurements: Measurements, clusterPcr: Uint8Array) {
    this.#clusterPcr = clusterPcr;
    this.#newcomers = new QemuVtpmVerifier({ measurements });
    this.#members = new QemuVtpmVerifier({ measurements: this.#ofMembers(measurements) });
  }

  get variant(): string {
    return this.#newcomers.variant;
  }

  get oid(): string {
    return this.#newcomers.oid;
  }

  /** From the next document on these count. */
  update(measurements: Measurements): void {
    this.#newcomers.update({ measurements });
    this.#members.update({ measurements: this.#ofMembers(measurements) });
  }

  async verify(document: Uint8Array, nonce: Uint8Array): Promise<Verdict> {
    try {
      return await this.#newcomers.verify(document, nonce);
    } catch (error) {
      // Genuine evidence of a machine that is no newcomer.
      if (!(error instanceof PolicyError)) throw error;
      return await this.#members.verify(document, nonce).catch(() => {
        throw error;
      });
    }
  }

  #ofMembers(measurements: Measurements): Measurements {
    return withPcr(measurements, CLUSTER_ID_PCR, this.#clusterPcr);
  }
}
