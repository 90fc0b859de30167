// docs/getting-started.md, "Step by step" to its end: every command as it stands there, in its order.
import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { ASTERISM, assertNodesReady, eventually, must, openCluster, run, SCRATCH, SKIP } from '../cluster.ts';

/** Stands in for the clone. */
const HERE = SCRATCH;
/** The folder that the page makes. */
const WORK = join(HERE, 'work');

/** The shell blocks below a heading of the page. */
async function blocks(heading: string): Promise<string[]> {
  const page = await readFile(join(import.meta.dirname, '../../docs/getting-started.md'), 'utf8');
  const section = page.split(/^## /m).find((part) => part.startsWith(heading));
  assert.ok(section, `the page has no section ${heading}`);
  const found = [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map((match) => match[1]!);
  assert.ok(found.length > 0, `section ${heading} has no commands`);
  return found;
}

const follow = (script: string, cwd: string): Promise<string> =>
  must(run('bash', ['-euxc', `cd "$0"\n${script}`, cwd], { timeoutMs: 45 * 60_000, show: true }));

describe('getting started', { skip: SKIP }, () => {
  before(async () => {
    await mkdir(HERE, { recursive: true });
    // The page says ../asterism: its folder is in the clone.
    await writeFile(join(HERE, 'asterism'), `#!/bin/sh\nexec '${ASTERISM}' "$@"\n`);
    await chmod(join(HERE, 'asterism'), 0o755);
  });

  test('a cluster, step by step', async () => {
    const [steps] = await blocks('Step by step');
    const output = await follow(steps!, HERE);
    assert.match(output, /control-plane-0/);
    const cluster = await openCluster(WORK);
    await assertNodesReady(cluster, cluster.state.nodes.length);
    assert.match((await must(cluster.kubectl(['get', 'nodes']))).trim(), /worker-0/);
  });

  test('when all control planes went down', async () => {
    const cluster = await openCluster(WORK);
    for (const { name } of cluster.state.nodes) await follow(`../asterism local stop ${name}`, WORK);
    const [steps] = await blocks('When all control planes went down');
    await follow(steps!, WORK);
    const count = cluster.state.nodes.length;
    await eventually('all nodes are Ready again', 300_000, () => assertNodesReady(cluster, count));
  });

  test('the key of a disk, without the cluster, opens that disk', async () => {
    const { state } = await openCluster(WORK);
    const disk = `/var/lib/asterism/local/${state.uid}/nodes/control-plane-0/state-disk.img`;
    const uuid = (await must(run('cryptsetup', ['luksUUID', disk]))).trim();
    const [steps] = await blocks('When the cluster is lost');
    const hex = (await follow(steps!.replace('UUID-OF-THE-DISK', uuid), WORK)).trim();
    assert.match(hex, /^[0-9a-f]{64}$/);
    const key = join(HERE, 'disk.key');
    await writeFile(key, Buffer.from(hex, 'hex'), { mode: 0o600 });
    await must(run('cryptsetup', ['open', '--test-passphrase', '--key-file', key, disk]));
  });

  test('removing it', async () => {
    const [steps] = await blocks('Removing it');
    await follow(steps!.replace(/terminate$/m, 'terminate --yes'), WORK);
    await assert.rejects(stat(join(WORK, 'asterism-state.json')), { code: 'ENOENT' });
    await stat(join(WORK, 'asterism-mastersecret.json'));
    await stat(join(WORK, 'asterism-conf.yaml'));
  });
});
