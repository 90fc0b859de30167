// What clusters change on their host, looked at on a host that has none: in mount namespaces with /run and /var/lib of
// their own and a file in the place of the kernel's limit, in a network of its own. Other clusters of the machine are
// neither seen nor harmed, and choose their subnets without regard to these.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { newUid, SKIP_NODES, testSpec } from './cluster.fixture.ts';

const LIMIT = '/proc/sys/fs/inotify/max_user_instances';

/** Runs a script that prints JSON on a host of its own. */
async function onEmptyHost(t: TestContext, before: string, script: string) {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-host-'));
  t.after(() => rm(folder, { recursive: true }));
  for (const name of ['run', 'lib']) await mkdir(join(folder, name));
  await writeFile(join(folder, 'limit'), '128');
  // The mounts of the real host would still be listed, below the new ones.
  const enter = `
    ip link set lo up
    umount --recursive --lazy /run/netns 2>/dev/null || true
    mount --bind "$1/run" /run; mount --bind "$1/lib" /var/lib; mount --bind "$1/limit" ${LIMIT}
    ${before}
    "$2" --input-type=module --eval "$3"`;
  const from = (name: string) => JSON.stringify(join(import.meta.dirname, name));
  const look = `
    import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
    import { execFileSync } from 'node:child_process';
    import { createLocalCluster, removeLocalCluster } from ${from('provider.ts')};
    import { noteNetworkFolder, removeNetworkFolder } from ${from('network-folder.ts')};
    // mount keeps notes in /run/mount.
    const look = () => ({
      limit: readFileSync('${LIMIT}', 'utf8').trim(),
      run: readdirSync('/run').filter((name) => name !== 'mount').sort(),
      lib: readdirSync('/var/lib'),
      mounted: readFileSync('/proc/self/mounts', 'utf8').includes(' /run/netns '),
    });
    const seen = [look()];`;
  const argv = ['sh', '-ec', enter, 'sh', folder, process.execPath];
  // Nobody would find its clusters when this process is killed: so everything in there ends with it.
  const { stdout, stderr } = spawnSync(
    'setpriv',
    [
      ...'--pdeathsig KILL unshare --mount --net --pid --fork --kill-child --mount-proc'.split(' '),
      ...argv,
      `${look}\n${script}\nprocess.stdout.write(JSON.stringify(seen));`,
    ],
    { encoding: 'utf8', timeout: 200_000, killSignal: 'SIGKILL' },
  );
  assert.ok(stdout, stderr);
  return JSON.parse(stdout) as { limit: string; run: string[]; lib: string[]; mounted: boolean }[];
}

describe('what clusters change on their host', { skip: SKIP_NODES }, () => {
  const empty = { limit: '128', run: [], lib: [], mounted: false };

  it('is put back with the last cluster, and not before', async (t) => {
    const [first, second] = [await testSpec(newUid(), 1, 0), await testSpec(newUid(), 0, 0)];
    const [before, one, two, left, none] = await onEmptyHost(
      t,
      '',
      `
      const options = { signal: AbortSignal.timeout(180_000), onDetail() {} };
      for (const spec of ${JSON.stringify([first, second])}) {
        await createLocalCluster(spec, options);
        seen.push(look());
      }
      // One whose record is damaged is a cluster too.
      writeFileSync('/var/lib/asterism/local/${second.uid}/cluster.json', '{ cut o');
      for (const uid of ${JSON.stringify([first.uid, second.uid])}) {
        await removeLocalCluster(uid, options);
        seen.push(look());
      }`,
    );
    const changed = { limit: '8192', run: ['asterism', 'netns'], lib: ['asterism'], mounted: true };
    assert.deepEqual([before, one, two, left, none], [empty, changed, changed, changed, empty]);
  });

  const LIGHT = `
    await noteNetworkFolder();
    execFileSync('ip', ['netns', 'add', 'ours']);
    execFileSync('ip', ['netns', 'del', 'ours']);
    await noteNetworkFolder();
    seen.push(look());
    await removeNetworkFolder();
    await removeNetworkFolder();
    seen.push(look());`;

  it('leaves a folder of network namespaces that was there, mounted or not', async (t) => {
    const mounted = await onEmptyHost(t, 'ip netns add theirs; ip netns del theirs', LIGHT);
    assert.deepEqual(mounted.at(-1), mounted[0]);
    assert.equal(mounted[0]!.mounted, true);
    const plain = await onEmptyHost(t, 'mkdir /run/netns', LIGHT);
    assert.equal(plain[1]!.mounted, true);
    assert.deepEqual(plain.at(-1), { ...empty, run: ['asterism', 'netns'] });
  });

  it('leaves a folder that others use by then', async (t) => {
    const seen = await onEmptyHost(
      t,
      '',
      LIGHT.replace('seen.push(look());', "execFileSync('ip', ['netns', 'add', 'theirs']);"),
    );
    assert.deepEqual(seen.at(-1), { ...empty, run: ['asterism', 'netns'], mounted: true });
  });
});
