// A second control plane is killed again and again while it joins, in each phase and at several moments of it. It goes
// on by itself, and etcd, which needs both of its members from some moment on, is whole in the end.
import assert from 'node:assert/strict';
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

const WORKSPACE = join(SCRATCH, 'join-resume');
const options = { workspace: WORKSPACE, timeoutMs: 20 * 60_000, show: true };

/** Kills the bootstrapper after each change of its journal: soon, later, and once more, while nothing changes. */
const KILLER = `
journal=/run/state/asterism/join-journal.json seen= kills=0
until grep -q '"complete": true' $journal 2>/dev/null; do
  now=$(cat $journal 2>/dev/null)
  [ "$now" = "$seen" ] || { seen=$now waits='0.1 2.5 5'; }
  set -- $waits
  if [ -n "$now" ] && [ $# -gt 0 ]; then
    sleep $1; shift; waits=$*
    [ "$(cat $journal)" = "$seen" ] || continue
    systemctl kill --signal=SIGKILL bootstrapper.service && kills=$((kills + 1))
    systemctl is-active --quiet bootstrapper.service || sleep 2.2
  else
    sleep 0.1
  fi
done
echo $kills`;

describe('a control plane that is killed while it joins', { skip: SKIP }, () => {
  before(() => createdMachines('join-resume', { controlPlanes: 2, workers: 0 }));
  after(() => removeWorkspace(new Workspace(WORKSPACE)));

  test('joins, and is a member of etcd', async () => {
    const { nodes } = await new Workspace(WORKSPACE).requireState();
    const joining = nodes.map(({ name }) => name).sort()[1]!;
    const killer = must(asterism(['local', 'exec', joining, '--', 'sh', '-c', KILLER], options));
    await must(asterism(['init'], options));
    const kills = Number((await killer).trim());
    console.log(`# killed ${kills} times`);
    // Most of a join's phases; how many kills hit one depends on how fast the machine is.
    assert.ok(kills >= 10, String(kills));

    const cluster = await openCluster(WORKSPACE);
    await eventually('nodes Ready', 180_000, () => assertNodesReady(cluster, 2));
    await eventually('etcd', 60_000, async () => {
      const pods = ['-n', 'kube-system', 'get', 'pods', '-l', 'component=etcd', '-o', 'json'];
      const { items } = JSON.parse(await must(cluster.kubectl(pods)));
      const ready = items.filter(({ status }: Pod) => status.containerStatuses?.every(({ ready }) => ready));
      assert.equal(ready.length, 2);
    });
    await eventually('verify', 60_000, () => must(asterism(['verify'], options)));
  });

  test('leaves no credential of the join behind', async () => {
    const { nodes } = await new Workspace(WORKSPACE).requireState();
    const joined = nodes.map(({ name }) => name).sort()[1]!;
    const files = ['/etc/kubernetes/bootstrap-kubelet.conf', '/run/state/asterism/join-ticket.json'];
    const listed = await asterism(['local', 'exec', joined, '--', 'ls', ...files], options);
    assert.equal(listed.stdout.trim(), '');
  });
});

interface Pod {
  readonly status: { readonly containerStatuses?: readonly { readonly ready: boolean }[] };
}
