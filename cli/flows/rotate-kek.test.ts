// Rotations that are killed, or have a full disk, at every step, and run again.
import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { it } from 'node:test';
import { renderMasterSecret } from '@asterism/config/master-secret';
import { parseKmsUri } from '@asterism/kms/uri';
import { nothingIsLost, reached, type Scene, scene, vault } from './rotate-kek-scene.fixture.ts';
import { retiredSecretFile } from './run-rotate-kek.ts';

/** Runs a rotation that is killed at its step n. @returns the step; undefined where there are no more */
async function killAt(found: Scene, n: number): Promise<string | undefined> {
  let count = 0;
  let last: string | undefined;
  const step = async (what: string) => {
    if (count++ < n) return;
    last ??= what;
    throw new Error('killed');
  };
  found.cluster.step = found.workspace.step = step;
  await found.rotate().then(
    () => {},
    (error) => assert.ok(last !== undefined, String(error)),
  );
  found.cluster.step = found.workspace.step = async () => {};
  return last;
}

for (const [what, before, after] of [
  ['derived keys', { type: 'cluster' }, { type: 'cluster' }],
  ['stored keys, the same key of the KMS', vault('k'), vault('k')],
  ['stored keys, another key of the KMS', vault('k'), vault('other')],
] as const) {
  it(`a rotation that is killed at any step loses nothing, and ends when it is run again: ${what}`, async (t) => {
    let n = 0;
    for (; ; n++) {
      const found = await scene(t, before);
      const { workspace, cluster, secret } = found;
      workspace.kms = after;
      const disks = cluster.disks.map(({ passphrase }) => passphrase);
      const killed = await killAt(found, n);
      await nothingIsLost(found, `after a kill at step ${n} (${killed})`);
      // Where it was over, another run would begin the next rotation.
      if ((await reached(found)) !== 2) await found.rotate();
      await nothingIsLost(found, `at the end, after a kill at step ${n} (${killed})`);
      assert.deepEqual(
        cluster.homes.map(({ kmsUri }) => parseKmsUri(kmsUri).generation),
        [2],
      );
      assert.deepEqual(
        (await readdir(workspace.folder)).filter((name) => name.endsWith('.tmp')),
        [],
      );
      const done = await workspace.requireState();
      assert.equal(done.nextKeyHome, undefined);
      if (before.type === 'cluster') {
        assert.equal((await workspace.masterSecret())?.generation, 2);
        assert.equal(await workspace.read(retiredSecretFile(1)), renderMasterSecret(secret));
        for (const [i, disk] of cluster.disks.entries()) {
          assert.deepEqual(disk.header, [{ name: '2.0', envelope: undefined }]);
          assert.notDeepEqual(disk.passphrase, disks[i]);
        }
      } else {
        assert.equal(parseKmsUri(done.keyHome?.kmsUri ?? '').generation, 2);
        for (const [i, disk] of cluster.disks.entries()) {
          assert.match(Buffer.from(disk.header[0]!.envelope!).toString(), /"generation":2/);
          assert.deepEqual(disk.passphrase, disks[i]);
        }
        for (const bytes of cluster.store.objects.values())
          assert.match(Buffer.from(bytes).toString(), /"generation":2/);
      }
      if (killed === undefined) break;
    }
    assert.ok(n > 30, `${n} steps`);
  });
}

for (const kms of [{ type: 'cluster' }, vault('k')] as const) {
  it(`a disk that is full at any write of the workspace loses nothing: kms.type ${kms.type}`, {
    skip: process.getuid?.() !== 0 && 'mounting needs root',
  }, async (t) => {
    let [at, refused] = [0, 0];
    for (; ; at++) {
      const found = await scene(t, kms, true);
      const { workspace } = found;
      const filler = workspace.path('filler');
      let writes = 0;
      workspace.step = async (what) => {
        if (what.startsWith('before') && writes++ === at) fillDisk(filler);
      };
      const error = await found.rotate().then(
        () => undefined,
        (reason) => reason,
      );
      workspace.step = async () => {};
      if (writes <= at) break;
      await nothingIsLost(found, `with a full disk at write ${at}`);
      await rm(filler);
      // What is only renamed needs no space.
      if (error !== undefined) {
        refused++;
        assert.equal(error.code, 'ERR_WRITE');
        assert.match(error.message, /cannot be written: no space left on device/);
        await found.rotate();
      }
      await nothingIsLost(found, `after a full disk at write ${at}`);
      assert.equal(await reached(found), 2);
    }
    assert.equal(refused, 2);
  });
}

/** To the last byte. */
function fillDisk(path: string): void {
  for (const size of [1 << 16, 1 << 12, 1]) {
    try {
      for (;;) appendFileSync(path, new Uint8Array(size));
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
    }
  }
}
