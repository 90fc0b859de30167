import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClusterState } from '@asterism/config/state';
import { Workspace } from '@asterism/config/workspace';
import { NO_STORE_URI, renderClusterKmsUri } from '@asterism/kms/cluster-uri';
import { listHomes, listStoredKeys } from './list-keys.ts';
import { MemoryCluster } from './rotate-kek.fixture.ts';

const signal = new AbortController().signal;
const CLUSTER = 'ab'.repeat(32);
const VAULT = `kms://vault?address=https%3A%2F%2Fbao.example&keyName=k&clusterID=${CLUSTER}`;

test('a master secret is in no line about homes, and neither are credentials that v2.6 put into URIs', async () => {
  const cluster = new MemoryCluster();
  const key = Buffer.alloc(32, 'hunter22');
  const secret = { key, salt: key };
  const later = { ...secret, generation: 2, measurementSecret: new Uint8Array(key) };
  cluster.configure([
    { kmsUri: renderClusterKmsUri(secret), storageUri: NO_STORE_URI },
    { kmsUri: renderClusterKmsUri(later), storageUri: NO_STORE_URI },
  ]);
  assert.deepEqual(await listHomes(cluster, signal), [
    { generation: 1, kms: 'kms://cluster-kms', storage: NO_STORE_URI },
    { generation: 2, kms: 'kms://cluster-kms', storage: NO_STORE_URI },
  ]);
  cluster.configure([
    {
      kmsUri: `kms://aws?keyName=k&region=eu-central-1&accessKeyID=AKIDhunter22&accessKey=hunter22&clusterID=${CLUSTER}`,
      storageUri: 'storage://aws?bucket=abc&region=eu-central-1&accessKeyID=AKIDhunter22&accessKey=hunter22',
      credentials: { kms: { accessKey: 'hunter22' }, storage: { accessKey: 'hunter22' } },
    },
  ]);
  const homes = await listHomes(cluster, signal);
  assert.match(homes[0]!.kms, /^kms:\/\/aws\?.*keyName=k/);
  assert.match(homes[0]!.storage, /bucket=abc/);
  assert.doesNotMatch(JSON.stringify(homes), /hunter22/);
});

test('stored keys are listed by what their envelopes say, damaged ones too, up to a limit', async () => {
  const cluster = new MemoryCluster();
  cluster.configure([{ kmsUri: VAULT, storageUri: 'storage://kubernetes' }]);
  for (const id of ['key-a', 'key-b']) await cluster.key(id);
  cluster.store.objects.set('key-damaged', Buffer.from('{"ciphertext":"\u001b[2J"}'));
  const state = {
    keyHome: { kmsUri: VAULT, storageUri: 'storage://kubernetes', sources: { kms: {}, storage: {} } },
  } as ClusterState;
  const list = (limit: number, of = state) => listStoredKeys(of, new Workspace('.'), cluster, limit, signal);
  const keys = (await list(10)).sort((a, b) => (a.id < b.id ? -1 : 1));
  assert.deepEqual(
    keys.map(({ id, generation, kek }) => [id, generation, kek]),
    [
      ['key-a', 1, 'k'],
      ['key-b', 1, 'k'],
      ['key-damaged', null, ''],
    ],
  );
  assert.match(keys[2]!.error ?? '', /not a wrapped key/);
  assert.equal((await list(2)).length, 2);
  assert.deepEqual(await list(10, {} as ClusterState), []);
});
