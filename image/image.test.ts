import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { appendFile, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { toHex } from '@asterism/bytes/encoding';
import { bundle } from './bundle.ts';
import { packSquashfs } from './rootfs.ts';
import { predictMeasurements, STAGES, type StageFile } from './stages.ts';

describe('measurements of an image', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'asterism-image-'));
    await writeFile(join(folder, 'boot.sh'), 'boot');
    await writeFile(join(folder, 'cmdline'), 'a=b\n');
    await writeFile(join(folder, 'initrd.tar'), 'initrd');
    await writeFile(join(folder, 'node.squashfs'), 'root');
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it('are the extend rule over the digests of its files', async () => {
    const measurements = await predictMeasurements(folder);
    const sha256 = (...parts: (string | Buffer)[]) =>
      parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();
    const zero = Buffer.alloc(32);
    const value = (pcr: number) => toHex(measurements.get(pcr)!.expected);
    assert.equal(value(4), sha256(zero, sha256('boot')).toString('hex'));
    assert.equal(value(9), sha256(zero, sha256('initrd')).toString('hex'));
    assert.equal(value(11), sha256(zero, sha256('root')).toString('hex'));
    assert.equal(value(12), sha256(zero, sha256(Buffer.from('a=b\0', 'utf16le'))).toString('hex'));
    assert.deepEqual([...measurements.keys()], [4, 8, 9, 11, 12, 13, 15]);
    for (const pcr of [8, 13, 15]) assert.equal(value(pcr), '00'.repeat(32));
    for (const { warnOnly } of measurements.values()) assert.equal(warnOnly, false);
  });

  for (const { file, pcr } of STAGES) {
    it(`one byte more in ${file} changes PCR ${pcr} and no other`, async () => {
      const before_ = await predictMeasurements(folder);
      const path = join(folder, file satisfies StageFile);
      const original = await readFile(path);
      if (file === 'cmdline') await writeFile(path, 'a=c\n');
      else await appendFile(path, 'x');
      const changed = await predictMeasurements(folder);
      await writeFile(path, original);
      const different = [...before_].filter(
        ([index, { expected }]) => toHex(changed.get(index)!.expected) !== toHex(expected),
      );
      assert.deepEqual(
        different.map(([index]) => index),
        [pcr],
      );
    });
  }
});

describe('parts of an image', () => {
  it('are the same bytes when they are built again', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'asterism-image-'));
    for (const name of ['one', 'two']) {
      await bundle('services/disk-mapper/main.ts', join(folder, name, 'disk-mapper.mjs'));
      await packSquashfs(join(folder, name), join(folder, `${name}.squashfs`), AbortSignal.timeout(60_000));
    }
    assert.deepEqual(
      await readFile(join(folder, 'one.squashfs')),
      await readFile(join(folder, 'two.squashfs')),
    );
    const file = await open(join(folder, 'two.squashfs'));
    const magic = Buffer.alloc(4);
    await file.read(magic, 0, 4, 0);
    await file.close();
    assert.equal(magic.toString(), 'hsqs');
    await rm(folder, { recursive: true, force: true });
  });
});
