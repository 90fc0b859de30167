import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/**
 * Runs a module on a host that has no cluster yet: with /run and /var/lib of its own, in a network and among processes of
 * its own. Other clusters of the machine are neither seen nor harmed, and choose their subnets without regard to it.
 *
 * @param before shell commands of that host; `$1` is a folder that goes with the test
 * @param module it is inside a folder of its own: what it imports is named by `from`
 * @returns what the module wrote to standard output as JSON
 */
export async function onOwnHost(t: TestContext, before: string, module: string): Promise<unknown> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-host-'));
  t.after(() => rm(folder, { recursive: true }));
  for (const name of ['run', 'lib']) await mkdir(join(folder, name));
  // The mounts of the real host would still be listed, below the new ones.
  const enter = `
    ip link set lo up
    umount --recursive --lazy /run/netns 2>/dev/null || true
    mount --bind "$1/run" /run; mount --bind "$1/lib" /var/lib
    ${before}
    "$2" --input-type=module --eval "$3"`;
  // Nobody would find its clusters when this process is killed: so everything in there ends with it.
  const { stdout, stderr } = spawnSync(
    'setpriv',
    [
      ...'--pdeathsig KILL unshare --mount --net --pid --fork --kill-child --mount-proc'.split(' '),
      ...['sh', '-ec', enter, 'sh', folder, process.execPath, module],
    ],
    { encoding: 'utf8', timeout: 200_000, killSignal: 'SIGKILL' },
  );
  assert.ok(stdout, stderr);
  return JSON.parse(stdout);
}

/** A file of this folder, as an import names it. */
export const from = (name: string): string => JSON.stringify(join(import.meta.dirname, name));
