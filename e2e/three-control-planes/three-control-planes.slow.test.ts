// Three control planes: one may stop without anybody noticing, and comes back by itself; all of them are recovered.
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { assertNodesReady, asterism, type Cluster, eventually, must, ownCluster, SKIP } from '../cluster.ts';

const NODES = 4;

describe('three control planes', { skip: SKIP }, () => {
  let cluster: Cluster;
  const call = (...args: string[]) =>
    asterism(args, { workspace: cluster.workspace.folder, timeoutMs: 300_000 });
  const value = crypto.randomUUID();
  const stored = async () =>
    assert.equal(await must(cluster.kubectl(['get', 'cm', 'e2e', '-o', 'jsonpath={.data.value}'])), value);

  before(async () => {
    cluster = await ownCluster('three', ['--control-plane-nodes', '3', '--worker-nodes', '1']);
    await must(cluster.kubectl(['create', 'configmap', 'e2e', `--from-literal=value=${value}`]));
  });

  test('are all Ready and verified, each with a member of etcd', async () => {
    assert.equal(cluster.controlPlanes.length, 3);
    await eventually('nodes Ready', 180_000, () => assertNodesReady(cluster, NODES));
    const verdict = JSON.parse(await must(call('verify', '-o', 'json')));
    assert.equal(verdict.nodes.length, NODES);
    const labels = ['-n', 'kube-system', 'get', 'pods', '-l', 'component=etcd', '-o', 'json'];
    assert.equal(JSON.parse(await must(cluster.kubectl(labels))).items.length, 3);
  });

  // The first one: what init made must not be needed any more.
  test('go on without one, which rejoins by itself when it is back', async () => {
    const { name } = cluster.controlPlanes[0]!;
    await must(call('local', 'stop', name));
    await eventually('the API answers', 120_000, stored);
    await eventually('the node is seen to be gone', 120_000, () => assertNodesReady(cluster, NODES - 1));
    await must(call('local', 'start', name));
    await eventually('nodes Ready', 300_000, () => assertNodesReady(cluster, NODES));
    await eventually('verify', 120_000, () => must(call('verify')));
  });

  test('are recovered after all of them stopped', async () => {
    for (const verb of ['stop', 'start']) {
      for (const { name } of cluster.controlPlanes) await must(call('local', verb, name));
    }
    const { status, stdout, stderr } = await call('recover');
    assert.equal(status, 0, stderr);
    assert.match(stdout, /Recovered \d control-plane node/);
    await eventually('nodes Ready', 300_000, () => assertNodesReady(cluster, NODES));
    await eventually('the data', 60_000, stored);
    await eventually('verify', 120_000, () => must(call('verify')));
  });
});
