import { keyDeriver } from '@asterism/crypto/derive';
import { AsterismError } from '@asterism/errors/errors';
import { type ClusterKey, NO_STORE_URI, parseClusterKmsUri } from './cluster-uri.ts';
import type { KeyManager } from './types.ts';

const CLUSTER_KMS = 'kms://cluster-kms';

/**
 * The cluster's own KMS: every key is derived from the master secret, none is stored.
 * @throws AsterismError ERR_DERIVE for an empty key or salt
 */
export function clusterKms({ key, salt }: ClusterKey): KeyManager {
  const derive = keyDeriver(key, salt);
  return {
    getDek: async (id, length) => derive(id, length),
    close: async () => {},
  };
}

/**
 * The KMS that a pair of URIs names.
 * @throws ParseError the cluster KMS URI is malformed
 * @throws AsterismError ERR_KMS_UNSUPPORTED
 */
export async function openKms(kmsUri: string, storageUri: string): Promise<KeyManager> {
  const key = masterSecretOf(kmsUri);
  if (key === undefined) {
    throw new AsterismError('ERR_KMS_UNSUPPORTED', 'this version knows kms://cluster-kms only');
  }
  if (storageUri !== NO_STORE_URI) {
    throw new AsterismError(
      'ERR_KMS_UNSUPPORTED',
      `the cluster KMS derives its keys: its storage is ${NO_STORE_URI}`,
    );
  }
  return clusterKms(key);
}

/** The master secret that a cluster KMS URI holds; undefined for the URI of another KMS. */
export function masterSecretOf(kmsUri: string): ClusterKey | undefined {
  if (kmsUri !== CLUSTER_KMS && !kmsUri.startsWith(`${CLUSTER_KMS}?`)) return undefined;
  return parseClusterKmsUri(kmsUri);
}
