import type { Verdict, Verifier } from '../../types.ts';
import { VARIANTS } from '../../variants.ts';
import type { Binding } from './binding.ts';
import { parseDocument } from './parse.ts';
import { type VtpmPolicy, validateDocument } from './validate.ts';
import { DocumentVerifier } from './verify.ts';

/** Judges qemu-vtpm documents; the policy can be swapped while handshakes are under way. */
export class QemuVtpmVerifier implements Verifier {
  readonly variant = 'qemu-vtpm';
  readonly oid = VARIANTS['qemu-vtpm'].oid;
  #policy: VtpmPolicy;
  readonly #documents: DocumentVerifier;

  constructor(policy: VtpmPolicy, binding: Binding = 'v2.6') {
    this.#policy = policy;
    this.#documents = new DocumentVerifier(binding);
  }

  /** From the next document on this policy counts; a verification under way ends with the one it began with. */
  update(policy: VtpmPolicy): void {
    this.#policy = policy;
  }

  async verify(document: Uint8Array, nonce: Uint8Array): Promise<Verdict> {
    const policy = this.#policy;
    const verified = await this.#documents.verify(parseDocument(document), nonce);
    const checks = validateDocument(policy, verified);
    const { userData, attestationKeyId, pcrs } = verified;
    return { variant: this.variant, userData, attestationKeyId, pcrs, checks };
  }
}
