import type { Verdict, Verifier } from '../../types.ts';
import { VARIANTS } from '../../variants.ts';
import type { Binding } from './binding.ts';
import { parseDocument } from './parse.ts';
import { type VtpmPolicy, validateDocument } from './validate.ts';
import { verifyDocument } from './verify.ts';

/** Judges qemu-vtpm documents; the policy can be swapped while handshakes are under way. */
export class QemuVtpmVerifier implements Verifier {
  readonly variant = 'qemu-vtpm';
  readonly oid = VARIANTS['qemu-vtpm'].oid;
  #policy: VtpmPolicy;
  readonly #binding: Binding;

  constructor(policy: VtpmPolicy, binding: Binding = 'v2.6') {
    this.#policy = policy;
    this.#binding = binding;
  }

  /** From the next document on this policy counts; a verification under way ends with the one it began with. */
  update(policy: VtpmPolicy): void {
    this.#policy = policy;
  }

  async verify(document: Uint8Array, nonce: Uint8Array): Promise<Verdict> {
    const policy = this.#policy;
    const verified = await verifyDocument(parseDocument(document), nonce, this.#binding);
    const checks = validateDocument(policy, verified);
    const { userData, attestationKeyId, pcrs } = verified;
    return { variant: this.variant, userData, attestationKeyId, pcrs, checks };
  }
}
