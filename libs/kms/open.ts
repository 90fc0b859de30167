import { equal, zero } from '@asterism/bytes/bytes';
import { keyDeriver, MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import { AsterismError } from '@asterism/errors/errors';
import type { KubernetesApi } from '@asterism/kubernetes/api';
import { KMS_HOMES, type KmsName, STORE_HOMES, type StoreName } from './catalogue.ts';
import { type ClusterKey, NO_STORE_URI } from './cluster-uri.ts';
import { KmsError } from './errors.ts';
import type { Kek } from './kek.ts';
import type { Home, Settings } from './settings.ts';
import type { DekStore } from './store.ts';
import { type StoredKeysOptions, storedKeys } from './stored-keys.ts';
import type { KeyHome } from './types.ts';
import { type ExternalReference, parseKmsUri, parseStoreUri } from './uri.ts';
import { faultOf } from './values.ts';

type Credentials = Readonly<Record<string, string | undefined>>;

export interface KmsChoice {
  readonly kmsUri: string;
  /** They take the place of those in the URI. Empty: whatever the machine offers. */
  readonly credentials?: Credentials | undefined;
}

export interface StoreChoice {
  readonly storageUri: string;
  /** They take the place of those in the URI. Empty: whatever the machine offers. */
  readonly credentials?: Credentials | undefined;
  /** For `storage://kubernetes`. */
  readonly kubernetes?: KubernetesApi | undefined;
}

export interface KeyHomeOptions extends Pick<StoredKeysOptions, 'cache' | 'retry' | 'observer'> {
  readonly kmsUri: string;
  readonly storageUri: string;
  readonly credentials?: { readonly kms?: Credentials; readonly storage?: Credentials } | undefined;
  /** Takes the place of the store of the URI. It is closed with the home. */
  readonly store?: DekStore | undefined;
  /** For `storage://kubernetes`. */
  readonly kubernetes?: KubernetesApi | undefined;
  /** While a rotation is under way: the KEK of the generation before. */
  readonly previous?: KmsChoice | undefined;
}

type Loaders<N extends string, T> = Record<N, () => Promise<{ open(settings: Settings): Promise<T> }>>;

/** SDKs are loaded when they are used: most services never need one. */
const BACKENDS: Loaders<KmsName, Kek> = {
  aws: () => import('./backends/aws/backend.ts'),
  gcp: () => import('./backends/gcp/backend.ts'),
  azure: () => import('./backends/azure/backend.ts'),
  kmip: () => import('./backends/kmip/backend.ts'),
  vault: () => import('./backends/vault/backend.ts'),
  pkcs11: () => import('./backends/pkcs11/backend.ts'),
};

const STORES: Loaders<Exclude<StoreName, 'kubernetes'>, DekStore> = {
  aws: () => import('./stores/aws/store.ts'),
  gcp: () => import('./stores/gcp/store.ts'),
  azure: () => import('./stores/azure/store.ts'),
};

/**
 * The key home that URIs and credentials name. An external one is not asked for anything yet.
 *
 * @throws ParseError ERR_KMS_URI
 * @throws AsterismError ERR_KMS_UNSUPPORTED no such KMS or store, or they do not go together
 * @throws KmsError ERR_KMS_SETTINGS | ERR_STORE_SETTINGS | ERR_KMS_CREDENTIALS | ERR_STORE_CREDENTIALS
 */
export async function openKeyHome(options: KeyHomeOptions): Promise<KeyHome> {
  const { kmsUri, storageUri, credentials, previous, kubernetes, cache, retry, observer } = options;
  const reference = parseKmsUri(kmsUri);
  if (reference.kind === 'cluster') {
    if (storageUri !== NO_STORE_URI)
      throw unsupported(`the cluster KMS derives its keys: its storage is ${NO_STORE_URI}`);
    return clusterHome(reference);
  }
  const { clusterId, generation, acceptV26Blobs } = reference;
  if (clusterId === undefined)
    throw new KmsError('ERR_KMS_SETTINGS', 'the KMS URI has no clusterID, which wrapped keys are bound to');
  const opened: { close(): Promise<void> }[] = [];
  const kept = <T extends { close(): Promise<void> }>(part: T): T => {
    opened.push(part);
    return part;
  };
  try {
    const store = kept(
      options.store ?? (await openStore({ storageUri, credentials: credentials?.storage, kubernetes })),
    );
    const kek = kept(await openReference(reference, credentials?.kms));
    const older = previous && (await openPrevious(reference, previous));
    return storedKeys({
      ...{ kek, store, clusterId, generation, acceptV26Blobs, cache, retry, observer },
      previous: older,
    });
  } catch (error) {
    await Promise.allSettled(opened.map((part) => part.close()));
    throw error;
  }
}

/**
 * The KEK of an external KMS.
 * @throws as {@link openKeyHome}
 */
export async function openKek({ kmsUri, credentials }: KmsChoice): Promise<Kek> {
  const reference = parseKmsUri(kmsUri);
  if (reference.kind === 'cluster')
    throw unsupported('the cluster KMS derives its keys: it has no KEK that wraps');
  return openReference(reference, credentials);
}

/**
 * The store that a URI names.
 * @throws as {@link openKeyHome}
 */
export async function openStore({ storageUri, credentials, kubernetes }: StoreChoice): Promise<DekStore> {
  const reference = parseStoreUri(storageUri);
  if (reference === 'none')
    throw unsupported('keys of an external KMS need a storage, e.g. storage://kubernetes');
  const { name } = reference;
  const settings = settingsOf(STORE_HOMES[name], reference, credentials, 'STORE');
  if (name === 'kubernetes') {
    if (kubernetes === undefined)
      throw new KmsError(
        'ERR_STORE_SETTINGS',
        'storage://kubernetes is there only where the cluster is: give a copy of the wrapped keys in its place',
      );
    const { kubernetesStore } = await import('./stores/kubernetes/store.ts');
    return kubernetesStore(kubernetes);
  }
  return (await STORES[name]()).open(settings);
}

async function openReference(reference: ExternalReference, credentials?: Credentials): Promise<Kek> {
  const { name } = reference;
  const settings = settingsOf(KMS_HOMES[name], reference, credentials, 'KMS');
  return (await BACKENDS[name]()).open(settings);
}

async function openPrevious(
  current: ExternalReference,
  { kmsUri, credentials }: KmsChoice,
): Promise<{ kek: Kek; generation: number }> {
  const reference = parseKmsUri(kmsUri);
  if (reference.kind === 'cluster')
    throw unsupported('the cluster KMS is no generation before an external one');
  const { clusterId, generation } = reference;
  if (clusterId !== current.clusterId || generation >= current.generation)
    throw new KmsError(
      'ERR_KMS_SETTINGS',
      'the KMS before must have the same clusterID and a lower generation',
    );
  return { kek: await openReference(reference, credentials), generation };
}

function settingsOf(
  home: Home,
  { parameters, credentials }: Settings,
  given: Credentials = {},
  service: 'KMS' | 'STORE',
): Settings {
  const all = { ...credentials, ...given };
  const fault = faultOf(home.credentials, all);
  if (fault !== undefined)
    throw new KmsError(`ERR_${service}_SETTINGS`, `the credentials for ${home.about}: ${fault}`);
  return { parameters, credentials: all };
}

function unsupported(why: string): AsterismError {
  return new AsterismError('ERR_KMS_UNSUPPORTED', why);
}

/**
 * The cluster's own KMS: every key is derived from the master secret, none is stored.
 * @throws AsterismError ERR_DERIVE for an empty key or salt
 */
export function clusterHome({ key, salt, generation = 1, measurementSecret }: ClusterKey): KeyHome {
  const derive = keyDeriver(key, salt);
  const pinned = measurementSecret && Uint8Array.from(measurementSecret);
  const getDek = async (id: string, length: number): Promise<Uint8Array> => {
    // The cluster id hangs on it, so it outlives the master secret that first gave it.
    if (id !== MEASUREMENT_SECRET_ID || pinned === undefined) return derive(id, length);
    if (length !== pinned.length)
      throw new KmsError('ERR_DEK_LENGTH', `the key ${id} has ${pinned.length} bytes, not ${length}`);
    return Uint8Array.from(pinned);
  };
  return {
    kind: 'cluster',
    generation,
    getDek,
    wrapped: async () => undefined,
    async importDek(id, dek) {
      const derived = await getDek(id, dek.length);
      const same = equal(derived, dek);
      zero(derived);
      if (!same) throw new KmsError('ERR_DEK_EXISTS', `the cluster KMS derives another key for the id ${id}`);
    },
    status: async () => ({
      keyId: `cluster-kms generation ${generation}`,
      enabled: true,
      detail: 'keys are derived from the master secret (HKDF-SHA256)',
    }),
    close: async () => {},
  };
}
