import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { truncate, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { isZero } from '@asterism/bytes/bytes';
import { clusterId } from '@asterism/crypto/derive';
import { stateLayout } from '@asterism/disk/layout';
import { writeNodeState } from '@asterism/disk/node-state';
import { StateDisk } from '@asterism/disk/state-disk';
import { clusterIdPcr } from '@asterism/runtime/machine-tpm';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { memoryTpm } from './disk-mapper.fixture.ts';
import { PlainVolume } from './state-volume.ts';
import { Unlocker, WrongKeyError } from './unlock.ts';

const key = () => Uint8Array.from(randomBytes(32));
const measurementSecret = new Uint8Array(32).fill(1);
const measurementSalt = new Uint8Array(32).fill(2);
const by = { event: 'rejoin', address: '10.0.0.2' } as const;

test('while the key of a disk is being changed, either of the two brings the node back', async () => {
  await using folder = await temporaryFolder();
  const device = folder.file('disk.img');
  await writeFile(device, '');
  await truncate(device, 24 * 1024 * 1024);
  const disk = new StateDisk({ device, mappable: false, scratch: folder.file('scratch') });
  const mine = key();
  const { uuid: diskUuid } = await disk.format(mine);
  await disk.setInitialized(true);
  const layout = stateLayout(folder.file('state'));
  await writeNodeState(layout.nodeState, { role: 'Worker', measurementSalt });
  const volume = new PlainVolume(layout.root);
  for (const [diskKey, nextDiskKey, opens] of [
    [mine, undefined, true],
    [mine, key(), true],
    [key(), mine, true],
    [key(), undefined, false],
    [key(), key(), false],
  ] as const) {
    const tpm = memoryTpm();
    let opened: Uint8Array | undefined;
    const unlocker = new Unlocker({
      disk,
      tpm,
      layout,
      diskUuid,
      audit: { granted: async () => {} },
      volume: {
        create: () => volume.create(mine, diskUuid),
        close: () => volume.close(),
        isOpen: (uuid) => volume.isOpen(uuid),
        open: async (by) => {
          opened = Uint8Array.from(by);
        },
      },
      clusterId: async (secret, salt) => clusterId(secret, salt),
    });
    const unlocked = unlocker.unlock({ diskKey, nextDiskKey, measurementSecret }, by);
    if (!opens) {
      await assert.rejects(unlocked, WrongKeyError);
      assert.equal(opened, undefined);
      assert.ok(isZero(tpm.pcr));
      continue;
    }
    await unlocked;
    assert.deepEqual(opened, mine);
    assert.deepEqual(tpm.pcr, clusterIdPcr(clusterId(measurementSecret, measurementSalt)));
  }
});
