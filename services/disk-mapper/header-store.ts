import { DEK_PREFIX, MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import { diskDataKeyId, parseDiskKeyName } from '@asterism/disk/key-name';
import type { DiskKeyToken } from '@asterism/disk/key-token';
import { KmsError } from '@asterism/kms/errors';
import type { DekStore } from '@asterism/kms/store';

/** A store from which a recovery reads. Nothing is ever made for it: a new key would open nothing. */
export function readOnly(store: Pick<DekStore, 'get' | 'close'>): DekStore {
  const refuse = async (): Promise<never> => {
    throw new KmsError(
      'ERR_STORE_NOT_FOUND',
      'there is no wrapped key of this disk: it is the disk of another cluster, or was never a member of one with an external KMS',
    );
  };
  return {
    get: (name, signal) => store.get(name, signal),
    create: refuse,
    replace: refuse,
    remove: refuse,
    list: () => {
      throw new KmsError('ERR_STORE_SETTINGS', 'this store is read by name only');
    },
    close: () => store.close(),
  };
}

/** The wrapped keys that a disk carries in its own header. What they say is judged by whoever opens them. */
export function headerStore(diskUuid: string, token: DiskKeyToken | undefined): DekStore {
  const envelopes = new Map<string, Uint8Array | undefined>([
    [MEASUREMENT_SECRET_ID, token?.measurementSecret],
  ]);
  for (const { name, envelope } of token?.keys ?? []) envelopes.set(dekIdOf(diskUuid, name), envelope);
  return readOnly({
    async get(name) {
      const bytes = envelopes.get(name);
      return bytes === undefined ? undefined : { bytes, version: 'header' };
    },
    close: async () => {},
  });
}

/** @throws ParseError ERR_DISK_KEY_NAME */
export function dekIdOf(diskUuid: string, keyName: string): string {
  return `${DEK_PREFIX}${diskDataKeyId(diskUuid, parseDiskKeyName(keyName))}`;
}
