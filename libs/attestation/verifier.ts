import { AsterismError } from '@asterism/errors/errors';
import type { Verifier } from './types.ts';
import { createDummyVerifier } from './variants/dummy/dummy.ts';
import type { Binding } from './variants/qemu-vtpm/binding.ts';
import type { VtpmPolicy } from './variants/qemu-vtpm/validate.ts';
import { QemuVtpmVerifier } from './variants/qemu-vtpm/verifier.ts';
import { isVariant, VARIANTS } from './variants.ts';

export interface VerifierOptions extends VtpmPolicy {
  /** Name in {@link VARIANTS}. */
  readonly variant: string;
  /** How peers bind nonce and user data; default as v2.6. */
  readonly binding?: Binding;
  /** A word of the user, passed on from a flag that says what it does: lets variants in that prove nothing. */
  readonly allowInsecure?: boolean;
}

/** A verifier whose policy can be replaced while handshakes are under way: each uses the one it began with. */
export interface UpdatableVerifier extends Verifier {
  update(policy: VtpmPolicy): void;
}

/**
 * The verifier of a variant.
 * @throws AsterismError ERR_VARIANT | ERR_INSECURE_VARIANT
 */
export function createVerifier(options: VerifierOptions): UpdatableVerifier {
  const { variant, binding, allowInsecure = false, ...policy } = options;
  if (!isVariant(variant)) {
    const known = Object.keys(VARIANTS).join(', ');
    throw new AsterismError('ERR_VARIANT', `no attestation variant '${variant}'; there are: ${known}`);
  }
  switch (variant) {
    case 'qemu-vtpm':
      return new QemuVtpmVerifier(policy, binding);
    case 'dummy':
      return { ...createDummyVerifier({ allowInsecure }), update: () => {} };
  }
}
