// What clusters change on their host, looked at on a host that has none (see own-host.fixture.ts), with a file in the
// place of the kernel's limit.
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { newUid, SKIP_NODES, testSpec } from './cluster.fixture.ts';
import { from, onOwnHost } from './own-host.fixture.ts';

const LIMIT = '/proc/sys/fs/inotify/max_user_instances';

interface Seen {
  readonly limit: string;
  readonly forwards: string;
  readonly rules: number;
  readonly run: string[];
  readonly lib: string[];
  readonly mounted: boolean;
}

async function onEmptyHost(t: TestContext, before: string, script: string): Promise<Seen[]> {
  const limit = `echo 0 > /proc/sys/net/ipv4/ip_forward; echo 128 > "$1/limit"; mount --bind "$1/limit" ${LIMIT}`;
  const look = `
    import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
    import { execFileSync } from 'node:child_process';
    import { createLocalCluster, removeLocalCluster } from ${from('provider.ts')};
    import { noteNetworkFolder, removeNetworkFolder } from ${from('network-folder.ts')};
    // mount keeps notes in /run/mount.
    const look = () => ({
      limit: readFileSync('${LIMIT}', 'utf8').trim(),
      forwards: readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8').trim(),
      rules: execFileSync('iptables-save', { encoding: 'utf8' }).split('\\n').filter((line) => line.startsWith('-A')).length,
      run: readdirSync('/run').filter((name) => name !== 'mount').sort(),
      lib: readdirSync('/var/lib'),
      mounted: readFileSync('/proc/self/mounts', 'utf8').includes(' /run/netns '),
    });
    const seen = [look()];`;
  const end = 'process.stdout.write(JSON.stringify(seen));';
  return (await onOwnHost(t, `${limit}\n${before}`, `${look}\n${script}\n${end}`)) as Seen[];
}

describe('what clusters change on their host', { skip: SKIP_NODES }, () => {
  const empty = { limit: '128', forwards: '0', rules: 0, run: [], lib: [], mounted: false };

  it('is put back with the last cluster, and not before', async (t) => {
    const [first, second] = [await testSpec(newUid(), 1, 0), await testSpec(newUid(), 0, 0)];
    const open = { ...(await testSpec(newUid(), 0, 0)), egress: true };
    const [before, one, two, three, closed, left, none] = await onEmptyHost(
      t,
      '',
      `
      const options = { signal: AbortSignal.timeout(180_000), onDetail() {} };
      for (const spec of ${JSON.stringify([first, second, open])}) {
        await createLocalCluster(spec, options);
        seen.push(look());
      }
      await removeLocalCluster('${open.uid}', options);
      seen.push(look());
      // One whose record is damaged is a cluster too.
      writeFileSync('/var/lib/asterism/local/${second.uid}/cluster.json', '{ cut o');
      for (const uid of ${JSON.stringify([first.uid, second.uid])}) {
        await removeLocalCluster(uid, options);
        seen.push(look());
      }`,
    );
    const changed = { ...empty, limit: '8192', run: ['asterism', 'netns'], lib: ['asterism'], mounted: true };
    const egress = { ...changed, forwards: '1', rules: 4 };
    assert.deepEqual([before, one, two, three], [empty, changed, changed, egress]);
    assert.deepEqual([closed, left, none], [changed, changed, empty]);
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
