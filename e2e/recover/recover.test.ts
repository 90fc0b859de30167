// All control planes stop at once: no JoinService can give them their disk keys. `recover` brings the cluster back
// with its data; a wrong master secret is told apart from success.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { before, describe, test } from 'node:test';
import { generateMasterSecret, renderMasterSecret } from '@asterism/config/master-secret';
import {
  assertNodesReady,
  asterism,
  type Cluster,
  eventually,
  must,
  SKIP,
  sharedCluster,
} from '../cluster.ts';

describe('recover', { skip: SKIP }, () => {
  let cluster: Cluster;
  const value = crypto.randomUUID();

  before(async () => {
    cluster = await sharedCluster();
    await must(cluster.kubectl(['create', 'configmap', 'e2e-recover', `--from-literal=value=${value}`]));
    for (const node of cluster.controlPlanes) {
      await must(asterism(['local', 'stop', node.name], { timeoutMs: 120_000 }));
    }
    await assert.rejects(assertNodesReady(cluster, 2));
    for (const node of cluster.controlPlanes) {
      await must(asterism(['local', 'start', node.name], { timeoutMs: 120_000 }));
    }
  });

  test('with a wrong master secret the node proves that the key does not open its disk', async () => {
    const wrong = cluster.workspace.path('wrong-secret.json');
    await writeFile(wrong, renderMasterSecret(generateMasterSecret()), { mode: 0o600 });
    const { status, stdout, stderr } = await asterism(['recover', '--master-secret', wrong], {
      timeoutMs: 300_000,
    });
    assert.equal(status, 1, stdout + stderr);
    assert.match(stderr, /master secret/i);
    assert.doesNotMatch(stdout, /Recovered/);
  });

  test('with the right one every control plane is recovered', async () => {
    const { status, stdout, stderr } = await asterism(['recover'], { timeoutMs: 300_000 });
    assert.equal(status, 0, stderr);
    assert.match(stdout, new RegExp(`Recovered ${cluster.controlPlanes.length} control-plane node`));
  });

  test('the cluster is back with its data, and verifies', async () => {
    await eventually('nodes Ready after recovery', 300_000, () => assertNodesReady(cluster, 2));
    const path = 'jsonpath={.data.value}';
    assert.equal(await must(cluster.kubectl(['get', 'configmap', 'e2e-recover', '-o', path])), value);
    await eventually('verify after recovery', 120_000, () =>
      must(asterism(['verify'], { timeoutMs: 60_000 })),
    );
    await must(cluster.kubectl(['delete', 'configmap', 'e2e-recover']));
  });

  test('where nothing waits for recovery it says so', async () => {
    const { status, stdout, stderr } = await asterism(['recover', '--timeout', '10'], { timeoutMs: 120_000 });
    assert.equal(status, 4, stdout + stderr);
    assert.match(stdout + stderr, /No control-plane node/);
  });
});
