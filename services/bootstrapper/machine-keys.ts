import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { clusterId } from '@asterism/crypto/derive';
import { openKeyHome } from '@asterism/kms/open';
import { openFolderStore } from '@asterism/kms/stores/folder/store';
import { secretOf } from '@asterism/kms/stores/kubernetes/secret';
import type { KeyHome } from '@asterism/kms/types';
import { parseStoreUri } from '@asterism/kms/uri';
import type { Keys } from './init-phases.ts';
import type { InitOrder } from './init-request.ts';

/**
 * Keys for an init. A cluster that keeps its wrapped keys in Kubernetes has none yet: a folder of the state disk stands
 * in for it, and is emptied into it once it runs.
 */
export class MachineKeys implements Keys {
  readonly #folder: string;

  /** @param folder on the state disk, for this alone */
  constructor(folder: string) {
    this.#folder = folder;
  }

  async open({ kmsUri, storageUri, kmsCredentials }: InitOrder): Promise<KeyHome> {
    const home = { kmsUri, storageUri, ...(kmsCredentials && { credentials: kmsCredentials }) };
    if (!inKubernetes(storageUri)) return openKeyHome(home);
    return openKeyHome({ ...home, store: await openFolderStore(this.#folder) });
  }

  /** Wrapped keys that belong into the cluster's Kubernetes, as its objects. */
  async storedKeys({ storageUri }: InitOrder): Promise<object[]> {
    if (!inKubernetes(storageUri)) return [];
    const store = await openFolderStore(this.#folder);
    const objects: object[] = [];
    for await (const id of store.list()) {
      const stored = await store.get(id);
      if (stored !== undefined) objects.push(secretOf(id, stored.bytes));
    }
    await store.close();
    return objects;
  }

  /**
   * Those of an order that is not carried out any more, or that are in Kubernetes. The folder stays: a home may have it
   * open already.
   */
  async forget(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    for (const name of await readdir(this.#folder))
      await rm(join(this.#folder, name), { recursive: true, force: true });
  }

  async clusterId(measurementSecret: Uint8Array, measurementSalt: Uint8Array): Promise<Uint8Array> {
    return clusterId(measurementSecret, measurementSalt);
  }
}

function inKubernetes(storageUri: string): boolean {
  const store = parseStoreUri(storageUri);
  return store !== 'none' && store.name === 'kubernetes';
}
