import { createHash } from 'node:crypto';

/**
 * Names a set of components: "sha256:" and the SHA-256 over their hash strings in their order, as in v2.6
 * (wire-facts 6.5). Order and hashes count; addresses and paths do not.
 */
export function componentsHash(components: readonly { readonly hash: string }[]): string {
  const hash = createHash('sha256');
  for (const component of components) hash.update(component.hash);
  return `sha256:${hash.digest('hex')}`;
}

/** Name of the ConfigMap that holds the components: "k8s-components-sha256-<hex>". */
export function componentsConfigMapName(components: readonly { readonly hash: string }[]): string {
  return `k8s-components-${componentsHash(components).replace(':', '-')}`;
}
