import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { activeMappings } from '@asterism/disk/device-mapper';
import {
  assertNothingLeft,
  eventually,
  inNode,
  newUid,
  SKIP_NODES,
  testOptions,
  testSpec,
} from './cluster.fixture.ts';
import type { LocalCluster } from './cluster.ts';
import { canMapStateDisks, host } from './host.ts';
import {
  createLocalCluster,
  removeLocalCluster,
  startLocalNode,
  statusOfLocalCluster,
  stopLocalNode,
} from './provider.ts';
import { mappingOf } from './state-disks.ts';

const skip = SKIP_NODES || ((await canMapStateDisks()) ? false : 'this kernel has no device-mapper');
const NODES = ['control-plane-0', 'worker-0'];

describe('mapped state disks', { skip }, () => {
  let cluster: LocalCluster;
  const options = testOptions();
  const sh = async (node: string, script: string) => (await inNode(cluster, node, 'sh', '-c', script)).output;
  const mapped = (node: string) =>
    eventually(`the volume of ${node} is mounted`, 240_000, async () => {
      const states = await sh(node, 'systemctl is-active disk-mapper.service');
      return states === 'active\n';
    });
  const mine = async () => (await activeMappings()).filter((name) => name.includes(cluster.uid)).sort();
  const namesOf = (node: string) => [mappingOf(cluster.uid, node), `${mappingOf(cluster.uid, node)}_dif`];
  const loops = async () =>
    (await host('losetup', '--list', '--noheadings', '--output', 'BACK-FILE'))
      .split('\n')
      .filter((file) => file.includes(cluster.uid) && file.includes('state-disk.img'));

  before(async () => {
    cluster = await createLocalCluster(await testSpec(newUid(), 1, 1), options);
    for (const node of NODES) await mapped(node);
  });
  after(async () => {
    if (cluster === undefined) return;
    await removeLocalCluster(cluster.uid, options);
    await assertNothingLeft(cluster.uid);
  });

  it('each node has its own, and status says so', async () => {
    assert.deepEqual(await mine(), NODES.flatMap(namesOf).sort());
    for (const { stateDiskMapped } of await statusOfLocalCluster(cluster.uid))
      assert.equal(stateDiskMapped, true);
    for (const node of NODES) {
      const mounts = await sh(
        node,
        'for at in /run/state /var /etc/kubernetes /etc/cni /opt; do findmnt -no SOURCE,FSTYPE $at; done',
      );
      const rows = mounts.trim().split('\n');
      assert.equal(rows.length, 5);
      for (const row of rows)
        assert.match(row, new RegExp(`^/dev/mapper/${mappingOf(cluster.uid, node)}\\S* +ext4$`));
    }
  });

  it('what a node writes is on the disk as cipher text only, its journal too', async () => {
    const word = `plain-${newUid()}`;
    await sh('worker-0', `yes ${word} | head -c 1000000 > /var/lib/words; logger ${word}; sync`);
    assert.match(await sh('worker-0', 'journalctl --directory=/var/log/journal -n 50'), new RegExp(word));
    const disk = `/var/lib/asterism/local/${cluster.uid}/nodes/worker-0`;
    await host('sync');
    assert.equal((await host('sh', '-c', `grep -arlF ${word} ${disk} || true`)).trim(), '');
  });

  it('a disk-mapper that is started again keeps the volume', async () => {
    await sh('worker-0', 'echo kept > /run/state/kept; systemctl restart disk-mapper.service');
    await mapped('worker-0');
    assert.equal(await sh('worker-0', 'cat /run/state/kept'), 'kept\n');
  });

  it('a power cut and a shutdown take the mapping away, and leave the other node its own', async () => {
    await stopLocalNode(cluster.uid, 'worker-0', true);
    assert.deepEqual(await mine(), namesOf('control-plane-0'));
    assert.equal((await loops()).length, 1);
    await startLocalNode(cluster.uid, 'worker-0');
    await mapped('worker-0');
    // It was no member: what the boot before had written there is gone.
    assert.equal(await sh('worker-0', 'ls /run/state/kept 2>&1 | grep -c "No such file"'), '1\n');
    await stopLocalNode(cluster.uid, 'control-plane-0');
    assert.deepEqual(await mine(), namesOf('worker-0'));
  });
});
