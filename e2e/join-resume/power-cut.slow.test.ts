// A second control plane loses its power just when etcd has begun to count on it: the cluster stands still. It comes
// back on the same disk, which was not given up, and the join goes on to its end.
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Workspace } from '@asterism/config/workspace';
import {
  assertNodesReady,
  asterism,
  createdMachines,
  eventually,
  must,
  openCluster,
  removeWorkspace,
  SCRATCH,
  SKIP,
} from '../cluster.ts';

const WORKSPACE = join(SCRATCH, 'join-power-cut');
const options = { workspace: WORKSPACE, timeoutMs: 20 * 60_000, show: true };

/** Ends a moment after kubeadm has written down who the members of etcd are, this node among them. */
const UNTIL_MEMBER = `
until grep -q initial-cluster-state=existing /etc/kubernetes/manifests/etcd.yaml 2>/dev/null; do sleep 0.1; done
sleep 1.5`;

describe('a control plane whose power is cut while it joins etcd', { skip: SKIP }, () => {
  before(() => createdMachines('join-power-cut', { controlPlanes: 2, workers: 0 }));
  after(() => removeWorkspace(new Workspace(WORKSPACE)));

  test('is recovered, and joins', async () => {
    const { nodes } = await new Workspace(WORKSPACE).requireState();
    const joining = nodes.map(({ name }) => name).sort()[1]!;
    const member = must(asterism(['local', 'exec', joining, '--', 'sh', '-c', UNTIL_MEMBER], options));
    await must(asterism(['init'], options));
    await member;
    await must(asterism(['local', 'stop', joining], options));
    await must(asterism(['local', 'start', joining], options));
    // Nobody else can give the key of its disk: without its member etcd, and so the cluster, does not answer. Where the
    // cut came before that, the cluster gives it, and nobody asks for recovery.
    await asterism(['recover'], options);
    const cluster = await openCluster(WORKSPACE);
    await eventually('nodes Ready', 300_000, () => assertNodesReady(cluster, 2));
    await eventually('verify', 60_000, () => must(asterism(['verify'], options)));
  });
});
