import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { it } from 'node:test';
import { abandonedClusters } from './abandoned.fixture.ts';
import { assertNothingLeft, newUid, SKIP_NODES, testOptions, testSpec } from './cluster.fixture.ts';
import { createLocalCluster, removeLocalCluster } from './provider.ts';

it('a cluster of a test that was killed is found, and none of one that still runs', {
  skip: SKIP_NODES,
}, async () => {
  const from = (name: string) => JSON.stringify(join(import.meta.dirname, name));
  const uid = newUid();
  const script = `
    import { testOptions, testSpec } from ${from('cluster.fixture.ts')};
    import { createLocalCluster } from ${from('provider.ts')};
    await createLocalCluster(await testSpec('${uid}', 0, 0), testOptions());
    process.stdout.write('made');
    setTimeout(() => {}, 60_000);`;
  const test = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(test, 'exit');
  const mine = newUid();
  const uids = async () => (await abandonedClusters()).map((cluster) => cluster.uid);
  try {
    await once(test.stdout, 'data');
    await createLocalCluster(await testSpec(mine, 0, 0), testOptions());
    assert.ok(!(await uids()).includes(uid));
    test.kill('SIGKILL');
    await ended;
    const found = await uids();
    assert.ok(found.includes(uid));
    assert.ok(!found.includes(mine));
  } finally {
    test.kill('SIGKILL');
    for (const one of [uid, mine]) await removeLocalCluster(one, testOptions());
  }
  await assertNothingLeft(uid);
});
