import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { KubernetesApiError } from '@asterism/kubernetes/api';
import { startKube } from './kube.ts';

test('a real API server: roles count, manifests are judged strictly', { timeout: 240_000 }, async () => {
  await using kube = await startKube();
  const deploy = join(import.meta.dirname, '../deploy');
  for (const name of ['key-service', 'join-service', 'verification-service', 'flannel'])
    await kube.apply(await readFile(join(deploy, name, `${name}.yaml`), 'utf8'));
  const keyService = await kube.as('key-service');
  await assert.rejects(
    keyService.call('GET', '/api/v1/namespaces/kube-system/secrets'),
    (error: KubernetesApiError) => error.status === 403,
  );
  await assert.rejects(
    kube.apply('apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatum: {}\n'),
    /unknown field "datum"/,
  );
});
