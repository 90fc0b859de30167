import { createHash } from 'node:crypto';
import { toBase64 } from '@asterism/bytes/encoding';

export const KEYS_NAMESPACE = 'asterism-keys';
export const WRAPPED_DEK_TYPE = 'asterism.dev/wrapped-dek';
export const ID_ANNOTATION = 'asterism.dev/dek-id';

/** Names of Secrets have lower-case letters only, and ids have both cases: the id itself is an annotation. */
export function secretName(id: string): string {
  return `dek-${createHash('sha256').update(id).digest('hex').slice(0, 40)}`;
}

/**
 * A wrapped DEK as a Kubernetes object.
 * @param resourceVersion the one it takes the place of
 */
export function secretOf(id: string, envelope: Uint8Array, resourceVersion?: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      name: secretName(id),
      namespace: KEYS_NAMESPACE,
      annotations: { [ID_ANNOTATION]: id },
      ...(resourceVersion !== undefined && { resourceVersion }),
    },
    type: WRAPPED_DEK_TYPE,
    data: { envelope: toBase64(envelope) },
  };
}
