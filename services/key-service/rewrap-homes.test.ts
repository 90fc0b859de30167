import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubernetesApi } from '@asterism/kubernetes/api';
import { kmipSkip, startKmip } from '@asterism/testkit/counterparts/kmip';
import { rewrapHomes } from './rewrap-homes.ts';

const NO_KEYS: KubernetesApi = { call: async () => ({ items: [] }) as never };

test('KMS and store stay open until every key is re-wrapped', { skip: kmipSkip() }, async () => {
  await using server = await startKmip();
  for (const name of ['old', 'new']) await server.createKek(name);
  const { certificate: clientCertificate, key: clientKey } = server.client;
  const kms = { clientCertificate, clientKey, caCertificate: server.ca.pem };
  const homes = [1, 2].map((generation) => ({
    kmsUri: `kms://kmip?host=${server.host}&port=${server.port}&keyName=${generation === 1 ? 'old' : 'new'}&clusterID=${'ab'.repeat(32)}&generation=${generation}`,
    storageUri: 'storage://kubernetes',
    credentials: { kms, storage: {} },
  }));
  const rewrap = rewrapHomes({ homes }, NO_KEYS, 2);
  const result = await rewrap!(() => {}, AbortSignal.timeout(30_000));
  assert.deepEqual([result.total, result.failedCount], [0, 0]);
});
