// With three control planes behind the load balancer, each of which could be initialised, an init is killed again and
// again, with every bootstrapper. It goes on at the machine where it began, and makes one cluster.
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
import { INIT_JOURNAL, initUntil, inNode, killBootstrapper } from '../init-resume/killed-init.ts';

const WORKSPACE = join(SCRATCH, 'three-init');
const options = { workspace: WORKSPACE, timeoutMs: 600_000 };
const NODES = 3;
const MAX_STARTS = 40;
/** From here on others can join; they are left alone then. */
const LAST_KILL = 'network';

describe('an init among three control planes that is killed', { skip: SKIP }, () => {
  const workspace = new Workspace(WORKSPACE);
  let names: string[];

  before(async () => {
    await createdMachines('three-init', { controlPlanes: NODES, workers: 0 });
    names = (await workspace.requireState()).nodes.map(({ name }) => name).sort();
  });
  after(() => removeWorkspace(workspace));

  test('goes on at the machine where it began, and at no other', async () => {
    const phases = new Set<string>();
    let kills = 0;
    let over = false;
    for (let starts = 0; ; starts++) {
      assert.ok(starts < MAX_STARTS, `after ${starts} starts it is not done; phases seen: ${[...phases]}`);
      const status = await initUntil(WORKSPACE, phases, async (phase, init) => {
        over ||= phase === LAST_KILL;
        if (over) return;
        kills++;
        // The machine that began last: for a moment only the others answer.
        const order = kills % 2 === 0 ? names : names.toReversed();
        for (const name of order) await killBootstrapper(WORKSPACE, name);
        if (kills % 2 === 0) init.signal('SIGKILL');
      });
      for (const name of names.slice(1)) await inNode(WORKSPACE, name, 'test', '!', '-e', INIT_JOURNAL);
      if (status === 0) break;
    }
    assert.ok(kills >= 8, `${kills} kills`);
    await inNode(WORKSPACE, names[0]!, 'test', '-e', INIT_JOURNAL);
  });

  test('ends with one cluster of all machines', async () => {
    const cluster = await openCluster(WORKSPACE);
    await eventually('nodes Ready', 600_000, () => assertNodesReady(cluster, NODES));
    const labels = ['-n', 'kube-system', 'get', 'pods', '-l', 'component=etcd', '-o', 'json'];
    assert.equal(JSON.parse(await must(cluster.kubectl(labels))).items.length, NODES);
    await eventually('verify', 120_000, () => must(asterism(['verify'], options)));
  });
});
