import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { activeMappings, hasDeviceMapper } from '@asterism/disk/device-mapper';
import { StateDisk } from '@asterism/disk/state-disk';
import { runChecked } from '@asterism/runtime/program';
import { MappedVolume } from './state-volume.ts';

const skip = (await hasDeviceMapper()) ? false : 'this kernel has no device-mapper';
const TIMEOUT = { timeoutMs: 120_000 };

describe('state volume on a mapped disk', { skip }, () => {
  const mapping = `asterism-test-${randomBytes(4).toString('hex')}`;
  const key = new Uint8Array(randomBytes(32));
  const unstopped = new AbortController().signal;
  let folder: string;
  let disk: StateDisk;
  let volume: MappedVolume;
  const root = () => join(folder, 'state');
  const target = (name: string) => join(folder, 'root', name);
  const left = async () => ({
    mounts: (await readFile('/proc/self/mountinfo', 'utf8'))
      .split('\n')
      .filter((row) => row.includes(folder)),
    mappings: (await activeMappings()).filter((name) => name.startsWith(mapping)),
  });
  const NOTHING = { mounts: [], mappings: [] };

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'asterism-volume-'));
    const device = join(folder, 'disk.img');
    await writeFile(device, '');
    await truncate(device, 64 * 1024 * 1024);
    disk = new StateDisk({ device, mappable: true, scratch: join(folder, 'scratch') });
    for (const name of ['var', 'opt']) await mkdir(target(name), { recursive: true });
    await writeFile(join(target('var'), 'of-the-image'), 'there from the start');
    volume = new MappedVolume({
      disk,
      mapping,
      root: root(),
      binds: [
        ['var', target('var')],
        ['opt', target('opt')],
      ],
    });
    await disk.format(key);
  });
  afterEach(() => volume.close());
  after(() => rm(folder, { recursive: true, force: true }));

  it('has what the image has, and keeps what is written', async () => {
    assert.equal(await volume.isOpen(), false);
    await volume.create(key, '', unstopped);
    assert.equal(await volume.isOpen(), true);
    assert.equal(await readFile(join(target('var'), 'of-the-image'), 'utf8'), 'there from the start');
    await writeFile(join(target('opt'), 'mine'), 'kept');
    await volume.close();
    assert.deepEqual(await left(), NOTHING);
    assert.equal(await volume.isOpen(), false);
    await volume.open(key);
    assert.equal(await readFile(join(root(), 'opt/mine'), 'utf8'), 'kept');
    assert.equal(await readFile(join(target('opt'), 'mine'), 'utf8'), 'kept');
  });

  it('leaves nothing mapped or mounted where the key is wrong or there is no file system', async () => {
    await assert.rejects(volume.open(new Uint8Array(32)), { code: 'ERR_DISK_WRONG_KEY' });
    assert.deepEqual(await left(), NOTHING);
    await disk.format(key);
    await disk.wipe(mapping, key);
    await assert.rejects(volume.open(key), /mount/);
    assert.deepEqual(await left(), NOTHING);
    await volume.create(key, '', unstopped);
  });

  it('opens after a disk-mapper that was killed between any two steps', async () => {
    const device = `/dev/mapper/${mapping}`;
    const steps = [
      () => disk.map(mapping, key),
      () => runChecked('mount', [device, root()], TIMEOUT),
      () => runChecked('mount', ['--bind', join(root(), 'var'), target('var')], TIMEOUT),
    ];
    for (let done = 1; done <= steps.length; done++) {
      for (const step of steps.slice(0, done)) await step();
      assert.equal(await volume.isOpen(), false, `after ${done} steps`);
      await volume.open(key);
      assert.equal(await volume.isOpen(), true);
      await volume.close();
      assert.deepEqual(await left(), NOTHING, `after ${done} steps`);
    }
  });
});
