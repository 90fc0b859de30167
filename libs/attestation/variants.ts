/** What a variant's evidence rests on, in words that `verify` prints. */
export interface VariantInfo {
  readonly oid: string;
  readonly trust: string;
}

/** Every variant: adding one is a folder, a row here and a page in docs. */
export const VARIANTS = {
  'qemu-vtpm': {
    oid: '1.3.9900.5.1',
    trust:
      'The TPM is a program of the host and nothing proves whose key signed: whoever controls the host can forge this ' +
      'evidence. It shows what booted only if the host is trusted.',
  },
  dummy: {
    oid: '1.3.9900.1.1',
    trust: 'None: the document proves nothing at all. For development only.',
  },
} as const satisfies Record<string, VariantInfo>;

export type Variant = keyof typeof VARIANTS;

export function isVariant(name: string): name is Variant {
  return Object.hasOwn(VARIANTS, name);
}
