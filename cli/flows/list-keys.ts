import { printable } from '@asterism/bytes/printable';
import { readCredentials } from '@asterism/config/kms-credentials';
import type { ClusterState } from '@asterism/config/state';
import type { Workspace } from '@asterism/config/workspace';
import { AsterismError } from '@asterism/errors/errors';
import { parseEnvelope } from '@asterism/kms/envelope';
import { openStore } from '@asterism/kms/open';
import { parseKmsUri, parseStoreUri, renderKmsUri, renderStoreUri } from '@asterism/kms/uri';
import type { AdminApi } from './admin-api.ts';
import { readHomes } from './key-configuration.ts';

/** A home of the cluster's keys, without what is secret of it. */
export interface ListedHome {
  readonly generation: number;
  /** The URI; of the cluster's own KMS without its parameters, which are the master secret. */
  readonly kms: string;
  readonly storage: string;
}

/** A stored key, by what its envelope says. */
export interface ListedKey {
  readonly id: string;
  /** null: written by v2.6. */
  readonly generation: number | null;
  readonly kek: string;
  readonly error?: string;
}

/** The homes that the cluster's KeyServices use; two while a rotation is under way, the older one first. */
export async function listHomes(api: AdminApi, signal: AbortSignal): Promise<ListedHome[]> {
  const { homes } = await readHomes(api, signal);
  return homes.map(({ kmsUri, storageUri }) => {
    const reference = parseKmsUri(kmsUri);
    // Rendered anew: a URI as v2.6 wrote them has credentials in it.
    const kms = reference.kind === 'cluster' ? 'kms://cluster-kms' : renderKmsUri(reference);
    return { generation: reference.generation, kms, storage: renderStoreUri(parseStoreUri(storageUri)) };
  });
}

/** Every stored key, up to a limit; none where keys are derived. Nothing is unwrapped. */
export async function listStoredKeys(
  { keyHome }: ClusterState,
  workspace: Workspace,
  api: AdminApi,
  limit: number,
  signal: AbortSignal,
): Promise<ListedKey[]> {
  if (keyHome === undefined) return [];
  const { kmsUri, storageUri, sources } = keyHome;
  const kms = parseKmsUri(kmsUri);
  const reference = parseStoreUri(storageUri);
  if (kms.kind === 'cluster' || reference === 'none') return [];
  const only = { kms: {}, storage: sources.storage };
  const { storage } = await readCredentials(kms.name, reference.name, only, workspace.folder, process.env);
  const store = await openStore({ storageUri, credentials: storage, kubernetes: api });
  try {
    const keys: ListedKey[] = [];
    for await (const id of store.list(signal)) {
      if (keys.length >= limit) break;
      const found = await store.get(id, signal);
      if (found !== undefined) keys.push(describe(id, found.bytes));
    }
    return keys;
  } finally {
    await store.close();
  }
}

function describe(id: string, bytes: Uint8Array): ListedKey {
  try {
    const { binding, wrapped } = parseEnvelope(bytes);
    return { id, generation: binding?.generation ?? null, kek: printable(wrapped.keyId, 300) };
  } catch (error) {
    if (!(error instanceof AsterismError)) throw error;
    return { id, generation: null, kek: '', error: error.message };
  }
}
