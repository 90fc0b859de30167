import { toUtf8 } from '@asterism/bytes/encoding';
import type { ExternalKmsConfig } from '@asterism/config/kms-config';
import type { KmsCredentials } from '@asterism/config/kms-credentials';
import { renderHomeCredentials } from '@asterism/kms/key-configuration';
import { renderKmsUri, renderStoreUri } from '@asterism/kms/uri';

/** Where the keys of a cluster come from, as it travels in requests. */
export interface KeyHome {
  readonly kmsUri: string;
  readonly storageUri: string;
}

/**
 * The URIs of an external KMS and its store; they hold no credentials.
 * @param clusterId 64 hexadecimal digits; every wrapped key is bound to it
 */
export function externalKeyHome(kms: ExternalKmsConfig, clusterId: string, generation: number): KeyHome {
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
    storageUri: renderStoreUri({ name: store.type, parameters: store.parameters, credentials: {} }),
  };
}

/** Empty where there are none: then the nodes use what they have themselves. */
export function credentialBytes(credentials: KmsCredentials): Uint8Array {
  const none = Object.keys(credentials.kms).length + Object.keys(credentials.storage).length === 0;
  return none ? new Uint8Array() : toUtf8(renderHomeCredentials(credentials));
}
