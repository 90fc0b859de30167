// An init is killed again and again, its command and the node's bootstrapper in turn, at each phase that it reaches.
// Running `init` again goes on, until the cluster is there: the one that was begun, and whole. At last both are killed
// when the node has sent its answer and nobody has received it.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { KUBECONFIG_FILE, Workspace } from '@asterism/config/workspace';
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
import { INIT_JOURNAL, initUntil, inNode, killBootstrapper } from './killed-init.ts';

const WORKSPACE = join(SCRATCH, 'init-resume');
const workspace = new Workspace(WORKSPACE);
const options = { workspace: WORKSPACE, timeoutMs: 300_000 };
/** More starts than this means that the init does not get on. */
const MAX_STARTS = 60;
/** Nothing is killed here, so that no kill is still under way when the answer is to be lost. */
const SPARED = ['network', 'node-ready'];
/** At the first of these that is seen, the answer is lost. */
const LATE = ['cluster-objects', 'services', 'services-ready'];

describe('init that is killed', { skip: SKIP }, () => {
  const kills = { command: 0, bootstrapper: 0 };
  const phases = new Set<string>();
  let node: string;
  let answerWasLost = false;

  before(async () => {
    await createdMachines('init-resume', { controlPlanes: 1, workers: 1 });
    node = (await workspace.requireState()).nodes.find(({ role }) => role === 'ControlPlane')!.name;
  });
  after(() => removeWorkspace(workspace));

  test('goes on where it was, whichever end is killed', async () => {
    let turn: keyof typeof kills = 'bootstrapper';
    let first: string | undefined;
    while (!answerWasLost) {
      const starts = kills.command + kills.bootstrapper;
      assert.ok(starts < MAX_STARTS, `after ${starts} starts it is not done; phases seen: ${[...phases]}`);
      const status = await initUntil(WORKSPACE, phases, async (phase, init) => {
        if (LATE.includes(phase)) {
          init.signal('SIGSTOP');
          await eventually('the node ends the init', 300_000, () =>
            inNode(WORKSPACE, node, 'grep', '-q', 'endedAt', INIT_JOURNAL),
          );
          await killBootstrapper(WORKSPACE, node);
          init.signal('SIGKILL');
          answerWasLost = true;
          return;
        }
        if (SPARED.includes(phase)) return;
        kills[turn]++;
        if (turn === 'command') init.signal('SIGKILL');
        else await killBootstrapper(WORKSPACE, node);
        turn = turn === 'command' ? 'bootstrapper' : 'command';
      });
      assert.notEqual(status, 0, 'it must not end before the answer is lost');
      const { measurementSalt } = await workspace.requireState();
      first ??= measurementSalt;
      assert.equal(measurementSalt, first, 'the salt, and with it the cluster id, must not change');
    }
    console.log(`# killed: ${kills.command} times the command, ${kills.bootstrapper} times the bootstrapper`);
    assert.ok(kills.command >= 3 && kills.bootstrapper >= 3, JSON.stringify(kills));
  });

  test('gives its answer again where the first one was lost, and ends when it is confirmed', async () => {
    assert.equal(await workspace.read(KUBECONFIG_FILE), undefined);
    assert.equal((await workspace.requireState()).phase, 'initializing');
    await must(asterism(['init'], { ...options, show: true }));
    const state = await workspace.requireState();
    assert.deepEqual([state.phase, state.initUnconfirmed], ['initialized', undefined]);
    await inNode(WORKSPACE, node, 'grep', '-q', '"complete": true', INIT_JOURNAL);
    await eventually('the bootstrapper ends', 60_000, async () =>
      assert.equal(
        await inNode(WORKSPACE, node, 'sh', '-c', 'systemctl is-active bootstrapper || :'),
        'inactive\n',
      ),
    );
  });

  test('ends with a whole cluster, which the other node joins', async () => {
    const cluster = await openCluster(WORKSPACE);
    await eventually('nodes Ready', 180_000, () => assertNodesReady(cluster, 2));
    await eventually('verify', 60_000, () => must(asterism(['verify'], options)));
  });

  test('changes nothing when it is run once more, also where the confirmation may have been lost', async () => {
    const before = await workspace.requireState();
    for (const state of [before, { ...before, initUnconfirmed: true as const }]) {
      await workspace.writeState(state);
      const { status, stdout, stderr } = await asterism(['init'], options);
      assert.equal(status, 0, stderr);
      assert.match(stdout, new RegExp(`cluster ${before.clusterId} is initialised`));
      assert.deepEqual(await workspace.requireState(), before);
    }
  });
});
