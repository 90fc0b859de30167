// Follows docs/keys/disaster-recovery.md literally: each disaster happens, then the commands of its section are run, in
// the workspace of the shared cluster.
import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  ASTERISM,
  assertNodesReady,
  asterism,
  type Cluster,
  eventually,
  must,
  run,
  SCRATCH,
  SKIP,
  sharedCluster,
} from '../cluster.ts';

const PAGE = join(import.meta.dirname, '../../docs/keys/disaster-recovery.md');
const BIN = join(SCRATCH, 'disaster-bin');
/** What the page makes in the workspace. */
const MADE = ['backup', 'recovery-shares', 'new-workspace'];

describe('disaster recovery', { skip: SKIP }, () => {
  let cluster: Cluster;
  let secret: string;

  before(async () => {
    cluster = await sharedCluster();
    secret = await readFile(cluster.workspace.path('asterism-mastersecret.json'), 'utf8');
    await mkdir(BIN, { recursive: true });
    await writeFile(join(BIN, 'asterism'), `#!/bin/sh\nexec '${ASTERISM}' "$@"\n`);
    await chmod(join(BIN, 'asterism'), 0o755);
  });

  after(async () => {
    if (cluster === undefined) return;
    // Other scenarios use this workspace.
    for (const name of MADE) await rm(cluster.workspace.path(name), { recursive: true, force: true });
    await writeFile(cluster.workspace.path('asterism-mastersecret.json'), secret, { mode: 0o600 });
  });

  /** Runs the blocks of a section, with its placeholders filled in. */
  async function follow(heading: string, fill: Readonly<Record<string, string>> = {}): Promise<string[]> {
    const section = (await readFile(PAGE, 'utf8')).split(/^## /m).find((part) => part.startsWith(heading));
    assert.ok(section, `the page has no section ${heading}`);
    const outputs: string[] = [];
    for (const [, block] of section.matchAll(/^```sh\n(.*?)^```$/gms)) {
      const script = Object.entries(fill).reduce(
        (text, [name, value]) => text.replaceAll(name, value),
        block!,
      );
      const env = { PATH: `${BIN}:${process.env.PATH}` };
      const bash = ['-euo', 'pipefail', '-c', `cd "$0"\n${script}`, cluster.workspace.folder];
      const follow = () => must(run('bash', bash, { env, timeoutMs: 300_000, show: true }));
      // Nodes that were just recovered take a while to come up.
      outputs.push(await (script.includes(' verify') ? eventually('verify', 300_000, follow) : follow()));
    }
    assert.ok(outputs.length > 0, `section ${heading} has no commands`);
    return outputs;
  }

  async function stopAll(): Promise<void> {
    for (const { name } of cluster.state.nodes)
      await must(asterism(['local', 'stop', name], { timeoutMs: 120_000 }));
    await assert.rejects(assertNodesReady(cluster, 2));
  }

  async function startAll(): Promise<void> {
    for (const { name } of cluster.state.nodes)
      await must(asterism(['local', 'start', name], { timeoutMs: 120_000 }));
  }

  const isBack = () => eventually('nodes Ready again', 300_000, () => assertNodesReady(cluster, 2));

  test('before: copies and shares are made', async () => {
    const [, shares] = await follow('Before');
    assert.ok(shares);
    await must(cluster.kubectl(['create', 'configmap', 'e2e-disaster', '--from-literal=kept=yes']));
  });

  test('all control planes are down', async () => {
    await stopAll();
    const outputs = await follow('All control planes are down');
    assert.match(outputs.at(-1)!, /Recovered 1 control-plane node/);
    await isBack();
    const path = 'jsonpath={.data.kept}';
    assert.equal(await must(cluster.kubectl(['get', 'configmap', 'e2e-disaster', '-o', path])), 'yes');
  });

  test('the master secret is lost, the shares are there', async () => {
    await stopAll();
    await startAll();
    await rm(cluster.workspace.path('asterism-mastersecret.json'));
    const [recovered] = await follow('The master secret is lost, the shares are there');
    assert.match(recovered!, /Recovered 1 control-plane node/);
    assert.deepEqual(
      JSON.parse(await readFile(cluster.workspace.path('asterism-mastersecret.json'), 'utf8')),
      JSON.parse(secret),
    );
    await isBack();
  });

  test('the workspace is lost', async () => {
    await stopAll();
    await startAll();
    await follow('The workspace is lost');
    await isBack();
  });

  test('a disk is left, and no machine: its key opens it', async () => {
    const { uid } = cluster.state;
    const disk = `/var/lib/asterism/local/${uid}/nodes/worker-0/state-disk.img`;
    const uuid = (await must(run('cryptsetup', ['luksUUID', disk]))).trim();
    const outputs = await follow('A disk is left, and no machine', { DISK: disk, 'UUID --': `${uuid} --` });
    const hex = outputs.at(-1)!.trim();
    assert.match(hex, /^[0-9a-f]{64}$/);
    assert.match(outputs.join(''), /"type":"asterism-disk-key".*"name":"1\.0"/);
    const key = join(SCRATCH, 'disaster-disk.key');
    await writeFile(key, Buffer.from(hex, 'hex'), { mode: 0o600 });
    await must(run('cryptsetup', ['open', '--test-passphrase', '--key-file', key, disk]));
    await must(cluster.kubectl(['delete', 'configmap', 'e2e-disaster']));
  });
});
