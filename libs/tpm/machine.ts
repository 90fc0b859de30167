import { createHash } from 'node:crypto';
import { isZero } from '@asterism/bytes/bytes';
import { AsterismError } from '@asterism/errors/errors';
import { CLUSTER_ID_PCR, type MachineTpm } from '@asterism/runtime/machine-tpm';
import { provideAk } from './ak.ts';
import type { AkType } from './template.ts';
import { withTpm } from './with-tpm.ts';

const ALL_PCRS = Array.from({ length: 24 }, (_, index) => index);

/** The machine's own TPM, by its address; each method is one short connection. */
export class AddressedTpm implements MachineTpm {
  readonly #address: string;
  readonly #akType: AkType;

  constructor(address: string, akType: AkType) {
    this.#address = address;
    this.#akType = akType;
  }

  readPcrs(): Promise<ReadonlyMap<number, Uint8Array>> {
    return withTpm(this.#address, (tpm) => tpm.readPcrs(ALL_PCRS));
  }

  /** @throws AsterismError ERR_NODE_INITIALIZED a cluster id was extended in this boot already */
  extendClusterId(clusterId: Uint8Array): Promise<void> {
    // One turn at the TPM for both commands: of two callers at the same time only one extends.
    return withTpm(this.#address, async (tpm) => {
      const before = (await tpm.readPcrs([CLUSTER_ID_PCR])).get(CLUSTER_ID_PCR)!;
      if (!isZero(before)) {
        throw new AsterismError(
          'ERR_NODE_INITIALIZED',
          'PCR 15 of this boot holds a cluster id already; only a reboot frees it',
        );
      }
      await tpm.eventPcr(CLUSTER_ID_PCR, clusterId);
    });
  }

  async attestationKeyId(): Promise<string> {
    const area = await withTpm(this.#address, (tpm) => provideAk(tpm, this.#akType));
    return createHash('sha256').update(area).digest('hex');
  }
}
