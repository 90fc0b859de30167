import { AsterismError } from '@asterism/errors/errors';
import type { Issuer } from './types.ts';
import { createDummyIssuer } from './variants/dummy/dummy.ts';
import { createQemuVtpmIssuer, type QemuVtpmIssuerOptions } from './variants/qemu-vtpm/issue.ts';
import { isVariant, VARIANTS } from './variants.ts';

export interface IssuerOptions extends QemuVtpmIssuerOptions {
  /** Name in {@link VARIANTS}. */
  readonly variant: string;
  /** A word of the user, passed on from a flag that says what it does: lets variants out that prove nothing. */
  readonly allowInsecure?: boolean;
}

/**
 * The issuer of a variant, on the machine that it speaks of.
 * @throws AsterismError ERR_VARIANT | ERR_INSECURE_VARIANT
 */
export function createIssuer(options: IssuerOptions): Issuer {
  const { variant, allowInsecure = false, ...machine } = options;
  if (!isVariant(variant)) {
    const known = Object.keys(VARIANTS).join(', ');
    throw new AsterismError('ERR_VARIANT', `no attestation variant '${variant}'; there are: ${known}`);
  }
  switch (variant) {
    case 'qemu-vtpm':
      return createQemuVtpmIssuer(machine);
    case 'dummy':
      return createDummyIssuer({ allowInsecure });
  }
}
