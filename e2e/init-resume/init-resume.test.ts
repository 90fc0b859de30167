// An init is killed again and again, its command and the node's bootstrapper in turn, at each phase that it reaches.
// Running `init` again goes on, until the cluster is there: the one that was begun, and whole.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { Workspace } from '@asterism/config/workspace';
import {
  ASTERISM,
  assertNodesReady,
  asterism,
  eventually,
  must,
  openCluster,
  SCRATCH,
  SKIP,
} from '../cluster.ts';

const WORKSPACE = join(SCRATCH, 'init-resume');
const state = () => new Workspace(WORKSPACE).requireState();
const options = { workspace: WORKSPACE, timeoutMs: 300_000 };
/** More starts than this means that the init does not get on. */
const MAX_STARTS = 60;

describe('init that is killed', { skip: SKIP }, () => {
  const kills = { command: 0, bootstrapper: 0 };
  const phases = new Set<string>();

  before(async () => {
    for (const command of [
      ['config', 'generate', 'local', '--control-plane-nodes', '1', '--worker-nodes', '1'],
      ['create'],
    ]) {
      await must(asterism(command, { ...options, show: true }));
    }
  });
  after(async () => {
    if (process.env.ASTERISM_E2E_KEEP !== undefined) return;
    await must(asterism(['terminate', '--yes'], options));
    await rm(WORKSPACE, { recursive: true, force: true });
  });

  test('goes on where it was, whichever end is killed', async () => {
    const node = (await state()).nodes.find(({ role }) => role === 'ControlPlane')!.name;
    let turn: keyof typeof kills = 'bootstrapper';
    let first: string | undefined;
    for (let starts = 0; ; starts++) {
      assert.ok(starts < MAX_STARTS, `after ${starts} starts it is not done; phases seen: ${[...phases]}`);
      const status = await initUntilKilled(async (kill) => {
        kills[turn]++;
        if (turn === 'command') kill();
        else await must(asterism(['local', 'exec', node, '--', ...KILL_BOOTSTRAPPER], options));
        turn = turn === 'command' ? 'bootstrapper' : 'command';
      });
      const { measurementSalt } = await state();
      first ??= measurementSalt;
      assert.equal(measurementSalt, first, 'the salt, and with it the cluster id, must not change');
      if (status === 0) break;
    }
    console.log(`# killed: ${kills.command} times the command, ${kills.bootstrapper} times the bootstrapper`);
    assert.ok(kills.command >= 5 && kills.bootstrapper >= 5, JSON.stringify(kills));
  });

  test('ends with a whole cluster, which the other node joins', async () => {
    const cluster = await openCluster(WORKSPACE);
    await eventually('nodes Ready', 180_000, () => assertNodesReady(cluster, 2));
    await eventually('verify', 60_000, () => must(asterism(['verify'], options)));
  });

  test('changes nothing when it is run once more', async () => {
    const before = await state();
    const { status, stdout, stderr } = await asterism(['init'], options);
    assert.equal(status, 0, stderr);
    assert.match(stdout, new RegExp(`cluster ${before.clusterId} is initialised`));
    assert.deepEqual(await state(), before);
  });

  /** Runs `init`; calls back at each phase that was never seen to be done before. @returns its exit code */
  async function initUntilKilled(onPhase: (kill: () => void) => Promise<void>): Promise<number | null> {
    const child = spawn(ASTERISM, ['--workspace', WORKSPACE, 'init'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const closed = new Promise<number | null>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs);
    let told = '';
    let killing: Promise<void> | undefined;
    for await (const line of createInterface({ input: child.stderr })) {
      told = line;
      const phase = /^\s*init ([a-z-]+):/.exec(line)?.[1];
      if (phase === undefined || phases.has(phase)) continue;
      phases.add(phase);
      // One at a time: what is said while the last kill is under way was done before it.
      await killing;
      killing = onPhase(() => child.kill('SIGKILL'));
    }
    await killing;
    const status = await closed;
    clearTimeout(timer);
    if (status !== 0) console.log(`# init ended with ${status ?? 'SIGKILL'}: ${told}`);
    return status;
  }
});

const KILL_BOOTSTRAPPER = ['systemctl', 'kill', '--signal=SIGKILL', 'bootstrapper.service'];
