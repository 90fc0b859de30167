import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openFolderStore } from '@asterism/kms/stores/folder/store';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import type { InitOrder } from './init-request.ts';
import { MachineKeys } from './machine-keys.ts';

const ORDER = {
  kmsUri: `kms://vault?address=https%3A%2F%2F127.0.0.1%3A1&keyName=asterism&clusterID=${'ab'.repeat(32)}`,
  storageUri: 'storage://kubernetes',
  kmsCredentials: { kms: { token: 'hunter22' } },
} as unknown as InitOrder;

test('keys of an earlier order are forgotten, and the home that is open already keeps new ones', async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, 'wrapped-keys');
  const keys = new MachineKeys(path);
  await keys.forget();
  const home = await keys.open(ORDER);
  const store = await openFolderStore(path);
  await store.create('key-old', Uint8Array.of(1));
  await keys.forget();
  assert.deepEqual(await readdir(path), []);
  assert.equal(await store.create('key-new', Uint8Array.of(2)), 'created');
  const objects = (await keys.storedKeys(ORDER)) as { metadata: { name: string } }[];
  assert.equal(objects.length, 1);
  await home.close();
  await store.close();
});
