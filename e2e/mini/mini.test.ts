// One command makes an attested cluster: every node is Ready, verify holds, pods reach each other across nodes.
import assert from 'node:assert/strict';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import {
  assertNodesReady,
  asterism,
  type Cluster,
  eventually,
  must,
  run,
  SHARED,
  SKIP,
  sharedCluster,
} from '../cluster.ts';

/** What every command that judges evidence of this provider says of it. */
const TRUST = /whoever controls the host can forge this evidence/;
/** The image that every node carries, so that the scenario needs no registry. It holds Node. */
const IMAGE = 'asterism.local/services:0.1.0';

describe('mini', { skip: SKIP }, () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await sharedCluster();
  });

  test('makes one control-plane and one worker node, both Ready', async () => {
    assert.equal(cluster.controlPlanes.length, 1);
    assert.equal(cluster.workers.length, 1);
    await eventually('nodes Ready', 120_000, () => assertNodesReady(cluster, 2));
  });

  test('verify exits with 0 and lists the checks of every node', async () => {
    const verdict = JSON.parse(await must(asterism(['verify', '-o', 'json'], { timeoutMs: 120_000 })));
    assert.equal(verdict.nodes.length, 2);
    assert.match(verdict.trust, TRUST);
    for (const node of verdict.nodes) {
      assert.equal(node.outcome, 'passed', JSON.stringify(node));
      for (const name of ['pcr-4', 'pcr-9', 'pcr-11', 'pcr-12', 'pcr-15']) {
        assert.equal(
          node.checks.find((check: { name: string }) => check.name === name)?.outcome,
          'passed',
          name,
        );
      }
    }
  });

  test('verify against another cluster id exits with 3', async () => {
    const { status, stdout, stderr } = await asterism(['verify', '--cluster-id', 'ab'.repeat(32)], {
      timeoutMs: 120_000,
    });
    assert.equal(status, 3, stdout + stderr);
    assert.match(stdout + stderr, /pcr-15/);
  });

  test('verify of an address where nobody is exits with 4', async () => {
    const host = cluster.state.endpoint.replace(/\.\d+$/, '.250');
    const { status } = await asterism(['verify', '-e', host], { timeoutMs: 120_000 });
    assert.equal(status, 4);
  });

  test('the workspace files are for their owner only', async () => {
    for (const name of [
      'asterism-conf.yaml',
      'asterism-state.json',
      'asterism-mastersecret.json',
      'asterism-admin.conf',
      'asterism-mini.json',
    ]) {
      assert.equal((await stat(cluster.workspace.path(name))).mode & 0o777, 0o600, name);
    }
  });

  test('running it again says that the cluster is there, and changes nothing', async () => {
    const before = await cluster.workspace.read('asterism-state.json');
    const { status, stdout, stderr } = await asterism(['mini', 'up'], { timeoutMs: 120_000 });
    assert.equal(status, 0, stderr);
    assert.match(stdout + stderr, /already/);
    assert.match(stdout, TRUST);
    assert.equal(await cluster.workspace.read('asterism-state.json'), before);
  });

  test('the commands that it prints to try next can be run as they stand', async () => {
    const { commands } = JSON.parse(
      await must(asterism(['mini', 'up', '-o', 'json'], { timeoutMs: 120_000 })),
    );
    assert.equal(commands.length, 3);
    assert.match(await must(run('sh', ['-c', commands[0]])), /control-plane-0 +Ready/);
    assert.match(await must(run('sh', ['-c', commands[1]])), /2 of 2 nodes verified/);
    assert.ok(commands[2].endsWith(`--workspace ${SHARED} mini down`), commands[2]);
  });

  test('running it again with flags for another cluster is refused', async () => {
    const { status, stderr } = await asterism(['mini', 'up', '--worker-nodes', '2'], { timeoutMs: 60_000 });
    assert.equal(status, 1);
    assert.match(stderr, /is there already with 1 worker nodes/);
  });

  test('the cluster is among those of this machine, with its workspace', async () => {
    const { clusters } = JSON.parse(await must(asterism(['local', 'list', '-o', 'json'])));
    const { uid, name } = cluster.state;
    const found = clusters.find((one: { uid: string }) => one.uid === uid);
    assert.deepEqual(found, { uid, name, nodes: { running: 2, total: 2 }, workspace: SHARED });
  });

  test('mini down in another workspace names the clusters of this machine and removes none', async () => {
    const { status, stderr } = await asterism(['mini', 'down'], { workspace: join(SHARED, 'other') });
    assert.equal(status, 1);
    assert.match(stderr, /there is no mini cluster in/);
    assert.ok(stderr.includes(cluster.state.uid), stderr);
    await must(asterism(['verify'], { timeoutMs: 120_000 }));
  });

  test('create in a workspace that has a cluster is refused', async () => {
    const { status, stderr } = await asterism(['create'], { timeoutMs: 60_000 });
    assert.equal(status, 1);
    assert.match(stderr, /asterism-state\.json/);
  });

  test('a pod is reached through a Service from the other node', async (t) => {
    const [controlPlane, worker] = [cluster.controlPlanes[0]!, cluster.workers[0]!];
    t.after(() => cluster.kubectl(['delete', 'namespace', 'e2e-mini', '--ignore-not-found', '--wait=false']));
    await must(cluster.kubectl(['apply', '-f', '-'], { stdin: manifests(controlPlane.name, worker.name) }));
    const log = await eventually('an answer through the Service', 180_000, async () => {
      const text = await must(cluster.kubectl(['-n', 'e2e-mini', 'logs', 'client', '--request-timeout=10s']));
      assert.match(text, /answer: hello from /);
      return text;
    });
    assert.match(log, /answer: hello from server/);
    const pods = JSON.parse(await must(cluster.kubectl(['-n', 'e2e-mini', 'get', 'pods', '-o', 'json'])));
    const nodes = new Set(pods.items.map((pod: { spec: { nodeName: string } }) => pod.spec.nodeName));
    assert.equal(nodes.size, 2, 'both pods landed on one node');
  });

  test('status tells nodes, version and whether state disks are mapped', async () => {
    const status = JSON.parse(
      await must(asterism(['status', '-o', 'json'], { timeoutMs: 60_000, workspace: SHARED })),
    );
    assert.equal(status.phase, 'initialized');
    assert.equal(status.nodes.length, 2);
    assert.match(status.trust, TRUST);
    for (const node of status.nodes) {
      assert.equal(node.ready, true);
      assert.equal(typeof node.stateDiskMapped, 'boolean');
    }
  });
});

/** A server on one node, a Service before it, and a client on another node that asks until it is answered. */
function manifests(serverNode: string, clientNode: string): string {
  const server = `require('node:http').createServer((q,r)=>r.end('hello from '+process.env.HOSTNAME)).listen(8000)`;
  const client =
    `const ask=()=>fetch('http://web.e2e-mini.svc.cluster.local/',{signal:AbortSignal.timeout(3000)})` +
    `.then(r=>r.text()).then(t=>{console.log('answer: '+t)},e=>{console.log(String(e.cause??e));setTimeout(ask,1000)});ask()`;
  const pod = (name: string, nodeName: string, script: string, restartPolicy: string) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'e2e-mini', labels: { app: name } },
    spec: {
      nodeName,
      restartPolicy,
      tolerations: [{ operator: 'Exists' }],
      terminationGracePeriodSeconds: 1,
      containers: [{ name, image: IMAGE, imagePullPolicy: 'Never', command: ['node', '-e', script] }],
    },
  });
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'List',
    items: [
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'e2e-mini' } },
      pod('server', serverNode, server, 'Always'),
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'web', namespace: 'e2e-mini' },
        spec: { selector: { app: 'server' }, ports: [{ port: 80, targetPort: 8000 }] },
      },
      pod('client', clientNode, client, 'Never'),
    ],
  });
}
