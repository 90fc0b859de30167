// A node whose bootstrapper or root file system was changed by one byte boots and runs, but nobody gives it a secret:
// neither the command that would make it the first node, nor the cluster that it was a member of.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFile, link, mkdir, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { createCluster } from '@asterism/cli/flows/create-cluster';
import { machines } from '@asterism/cli/wiring/local';
import { parseClusterConfig } from '@asterism/config/cluster-config';
import { renderClusterConfig } from '@asterism/config/template';
import { Workspace } from '@asterism/config/workspace';
import { cacheFolder } from '@asterism/kubernetes/components/cache';
import { readCluster, writeCluster } from '@asterism/provider-local/cluster';
import { assertNodesReady, asterism, eventually, must, SCRATCH, SKIP, sharedCluster } from '../cluster.ts';

interface Tampering {
  readonly what: string;
  readonly file: string;
  readonly pcr: string;
  /** Offset of a byte whose change leaves the file usable. */
  at(content: Buffer): number;
}

const tamperings: readonly Tampering[] = [
  {
    what: 'the root file system',
    file: 'node.squashfs',
    pcr: 'pcr-11',
    // The time of its making in the superblock: nothing reads it.
    at: () => 8,
  },
  {
    what: 'the bootstrapper',
    file: 'initrd.tar',
    pcr: 'pcr-9',
    // A letter within a comment of the bundle: the program does exactly what it did.
    at: (content) => content.indexOf('\n// ', content.indexOf('bootstrapper.mjs')) + 4,
  },
];

const folders: string[] = [];

/** A copy of an image in the cache with one byte changed, under a reference of its own. */
async function tamperedCopy(
  folder: string,
  { file, at }: Tampering,
): Promise<{ folder: string; reference: string }> {
  const digest = createHash('sha256').update(`tampered ${file}`).digest('hex');
  const copy = cacheFolder('image', `e2e-${digest.slice(0, 12)}`);
  await rm(copy, { recursive: true, force: true });
  await mkdir(copy);
  folders.push(copy);
  for (const name of await readdir(folder)) {
    if (name === file) await copyFile(join(folder, name), join(copy, name));
    else if (name !== 'reference') await link(join(folder, name), join(copy, name));
  }
  const path = join(copy, file);
  const content = await readFile(path);
  const offset = at(content);
  assert.ok(offset > 3 && offset < content.length);
  const handle = await open(path, 'r+');
  await handle.write(Buffer.from([content[offset]! ^ 1]), 0, 1, offset);
  await handle.close();
  const reference = `sha256:${digest}`;
  await writeFile(join(copy, 'reference'), reference);
  return { folder: copy, reference };
}

describe('tampered image', { skip: SKIP }, () => {
  after(async () => {
    for (const folder of folders) await rm(folder, { recursive: true, force: true });
  });

  for (const tampering of tamperings) {
    test(`init gives nothing to a node with one changed byte in ${tampering.what}`, async () => {
      const shared = await sharedCluster();
      const { imageFolder } = await readCluster(shared.state.uid);
      const { reference } = await tamperedCopy(imageFolder, tampering);
      const workspace = new Workspace(join(SCRATCH, `tampered-${tampering.pcr}`));
      await mkdir(workspace.folder, { recursive: true });
      // The measurements stay those of the true image: that is what the user expects.
      const config = await shared.workspace.config();
      const text = renderClusterConfig({
        ...config,
        name: 'tampered',
        provider: { local: { ...config.provider.local, controlPlaneNodes: 1, workerNodes: 0 } },
      });
      await workspace.create('asterism-conf.yaml', text, { overwrite: true });
      const options = { signal: AbortSignal.timeout(180_000), onDetail: () => {} };
      await createCluster(workspace, { ...parseClusterConfig(text), image: reference }, machines, options);
      try {
        const { status, stdout, stderr } = await asterism(['init'], {
          workspace: workspace.folder,
          timeoutMs: 400_000,
        });
        assert.equal(status, 3, stdout + stderr);
        assert.match(stderr, new RegExp(tampering.pcr.replace('-', '.?'), 'i'));
        await assert.rejects(readFile(workspace.path('asterism-admin.conf')), { code: 'ENOENT' });
      } finally {
        await must(asterism(['terminate', '--yes'], { workspace: workspace.folder, timeoutMs: 180_000 }));
      }
    });

    test(`a member that comes back with one changed byte in ${tampering.what} gets no disk key`, async () => {
      const shared = await sharedCluster();
      const worker = shared.workers[0]!;
      const true_ = await readCluster(shared.state.uid);
      const { folder } = await tamperedCopy(true_.imageFolder, tampering);
      await must(asterism(['local', 'stop', worker.name], { timeoutMs: 120_000 }));
      await eventually('the worker is seen to be gone', 180_000, () => assertNodesReady(shared, 1));
      await writeCluster({ ...true_, imageFolder: folder });
      try {
        await must(asterism(['local', 'start', worker.name], { timeoutMs: 120_000 }));
        // It asks again and again. A true node in its place is Ready within 15 s.
        const since = new Date().toISOString();
        await eventually('refusals in the log of the JoinService', 120_000, async () => {
          const args = [
            '-n',
            'kube-system',
            'logs',
            '-l',
            'app=join-service',
            '--tail=-1',
            `--since-time=${since}`,
          ];
          const log = await must(shared.kubectl(args));
          assert.ok(log.split('aTLS connection refused').length > 3, log.slice(-2000));
        });
        await assertNodesReady(shared, 1);
      } finally {
        await must(asterism(['local', 'stop', worker.name], { timeoutMs: 120_000 }));
        await writeCluster(true_);
        await must(asterism(['local', 'start', worker.name], { timeoutMs: 120_000 }));
      }
      await eventually('the true worker is Ready again', 300_000, () => assertNodesReady(shared, 2));
    });
  }
});
