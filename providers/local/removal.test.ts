import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { processesIn } from './cgroups.ts';
import { assertNothingLeft, inNode, newUid, SKIP_NODES, testOptions, testSpec } from './cluster.fixture.ts';
import { clusterFolder, runtimeFolder } from './cluster.ts';
import { removeNetworks } from './network.ts';
import { killAll } from './process.ts';
import { createLocalCluster, removeLocalCluster, startLocalNode, statusOfLocalCluster } from './provider.ts';

const options = testOptions();
const record = (uid: string) => join(clusterFolder(uid), 'cluster.json');

describe('removal of a local cluster', { skip: SKIP_NODES }, () => {
  it('leaves nothing behind, and can be told so twice', async () => {
    const { uid } = await createLocalCluster(await testSpec(newUid(), 1, 1), options);
    try {
      await assert.rejects(assertNothingLeft(uid), /left among/);
    } finally {
      await removeLocalCluster(uid, options);
    }
    await assertNothingLeft(uid);
    await removeLocalCluster(uid, options);
  });

  it('needs no record of what was made', async () => {
    const { uid } = await createLocalCluster(await testSpec(newUid(), 1, 0), options);
    await rm(join(clusterFolder(uid), 'nodes/control-plane-0/init.pid'));
    await rm(join(clusterFolder(uid), 'nodes/control-plane-0/swtpm.pid'));
    await rm(join(clusterFolder(uid), 'supervisor.pid'));
    await writeFile(record(uid), '{ cut o');
    await removeLocalCluster(uid, options);
    await assertNothingLeft(uid);
  });

  // Somewhere between before the first file and after the last node.
  for (const afterMs of [350, 600, 900, 1300, 1800, 2500, 3500]) {
    it(`cleans up after a launcher that is killed ${afterMs} ms after its start`, async () => {
      const spec = await testSpec(newUid(), 1, 1);
      const script = `
        import { createLocalCluster } from ${JSON.stringify(join(import.meta.dirname, 'provider.ts'))};
        const options = { signal: AbortSignal.timeout(60_000), onDetail() {} };
        await createLocalCluster(${JSON.stringify(spec)}, options);`;
      const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: 'ignore' });
      const ended = once(child, 'exit');
      setTimeout(() => child.kill('SIGKILL'), afterMs);
      await ended;
      await removeLocalCluster(spec.uid, options);
      await assertNothingLeft(spec.uid);
    });
  }

  it('refuses what is no cluster', async () => {
    for (const uid of ['', '..', '../../../etc', 'ABCDEF01', 'abcdef012']) {
      await assert.rejects(removeLocalCluster(uid, options), { code: 'ERR_NO_CLUSTER' }, uid);
    }
  });
});

describe('a local cluster after the host was switched off', { skip: SKIP_NODES }, () => {
  it('starts again from its files', async () => {
    const { uid } = await createLocalCluster(await testSpec(newUid(), 1, 0), options);
    try {
      await inNode({ uid }, 'control-plane-0', 'sh', '-c', 'echo kept > /run/state/kept');
      await killAll(await processesIn(uid));
      await removeNetworks(uid);
      await rm(runtimeFolder(uid), { recursive: true });
      assert.deepEqual(
        (await statusOfLocalCluster(uid)).map(({ running }) => running),
        [false],
      );
      await startLocalNode(uid, 'control-plane-0');
      const { output } = await inNode({ uid }, 'control-plane-0', 'cat', '/run/state/kept');
      assert.equal(output, 'kept\n');
    } finally {
      await removeLocalCluster(uid, options);
    }
    await assertNothingLeft(uid);
  });

  it('is started once, however many ask at the same time', async () => {
    const { uid } = await createLocalCluster(await testSpec(newUid(), 1, 0), options);
    try {
      await killAll(await processesIn(uid, 'control-plane-0'));
      await Promise.all([1, 2, 3].map(() => startLocalNode(uid, 'control-plane-0')));
      const { output } = await inNode({ uid }, 'control-plane-0', 'cat', '/proc/1/comm');
      assert.equal(output, 'systemd\n');
    } finally {
      await removeLocalCluster(uid, options);
    }
  });
});
