import { toUtf8 } from '@asterism/bytes/encoding';
import type { ExternalKmsConfig } from '@asterism/config/kms-config';
import { type KmsCredentials, readCredentials } from '@asterism/config/kms-credentials';
import type { StoredKeyHome } from '@asterism/config/state';
import { ParseError } from '@asterism/errors/errors';
import { type HomeConfiguration, renderHomeCredentials } from '@asterism/kms/key-configuration';
import { parseKmsUri, parseStoreUri, renderKmsUri, renderStoreUri } from '@asterism/kms/uri';

/**
 * The URIs of an external KMS and its store, which hold no credentials, and where those are.
 * @param clusterId 64 hexadecimal digits; every wrapped key is bound to it
 */
export function externalKeyHome(
  kms: ExternalKmsConfig,
  clusterId: string,
  generation: number,
): StoredKeyHome {
  const { type, parameters, v26Blobs, store } = kms;
  return {
    kmsUri: renderKmsUri({
      kind: 'external',
      name: type,
      parameters,
      clusterId,
      generation,
      acceptV26Blobs: v26Blobs,
      credentials: {},
    }),
    storageUri: renderStoreUri({
      name: store.type,
      parameters: { ...defaultPrefix(kms, clusterId), ...store.parameters },
      credentials: {},
    }),
    sources: { kms: kms.credentials, storage: store.credentials },
  };
}

/** Clusters that share a bucket have the same ids of keys: each gets a prefix of its own. v2.6 wrote none. */
function defaultPrefix({ store, v26Blobs }: ExternalKmsConfig, clusterId: string): Record<string, string> {
  return store.type === 'kubernetes' || v26Blobs ? {} : { prefix: `asterism/${clusterId.slice(0, 16)}/` };
}

/**
 * An external home with its credentials, as the cluster's key configuration has it.
 * @throws AsterismError ERR_CREDENTIALS
 */
export async function homeWithCredentials(
  { kmsUri, storageUri, sources }: StoredKeyHome,
  folder: string,
): Promise<HomeConfiguration> {
  const kms = parseKmsUri(kmsUri);
  const store = parseStoreUri(storageUri);
  if (kms.kind === 'cluster' || store === 'none')
    throw new ParseError('the state file names no external KMS', { code: 'ERR_CONFIG' });
  const credentials = await readCredentials(kms.name, store.name, sources, folder, process.env);
  return { kmsUri, storageUri, ...(isEmpty(credentials) ? {} : { credentials }) };
}

/** What a request says of a home. */
export function requestOf({ kmsUri, storageUri, credentials }: HomeConfiguration): {
  kmsUri: string;
  storageUri: string;
  kmsCredentials: Uint8Array;
} {
  return { kmsUri, storageUri, kmsCredentials: credentialBytes(credentials) };
}

/** Empty where there are none: then the nodes use what they have themselves. */
export function credentialBytes(credentials: KmsCredentials | undefined): Uint8Array {
  return credentials === undefined || isEmpty(credentials)
    ? new Uint8Array()
    : toUtf8(renderHomeCredentials(credentials));
}

function isEmpty({ kms, storage }: KmsCredentials): boolean {
  return Object.keys(kms).length + Object.keys(storage).length === 0;
}
