import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after, before, beforeEach, describe, it } from 'node:test';
import { runChecked } from '@asterism/runtime/program';
import { activeMappings, hasDeviceMapper } from './device-mapper.ts';
import { MAX_KEY_TOKEN_BYTES, renderKeyToken } from './key-token.ts';
import { LUKS2_DATA_OFFSET } from './luks2-header.ts';
import { StateDisk } from './state-disk.ts';

const NO_INTEGRITY = { mappable: false };

describe('state disk with real cryptsetup on an image file', () => {
  let folder: string;
  let device: string;
  let disk: StateDisk;
  const first = new Uint8Array(randomBytes(32));
  const second = new Uint8Array(randomBytes(32));

  before(async () => {
    folder = await mkdtemp(`${tmpdir()}/asterism-disk-`);
  });
  after(() => rm(folder, { recursive: true, force: true }));
  beforeEach(async () => {
    device = `${folder}/disk-${randomBytes(4).toString('hex')}.img`;
    await writeFile(device, '');
    await truncate(device, 64 * 1024 * 1024);
    disk = new StateDisk({ device, ...NO_INTEGRITY, scratch: `${folder}/scratch` });
  });

  it('formats a blank disk, not initialised, one key slot', async () => {
    assert.deepEqual(await disk.inspect(), { kind: 'blank' });
    const header = await disk.format(first);
    assert.deepEqual(await disk.inspect(), { kind: 'formatted', header });
    assert.match(header.uuid, /^[0-9a-f-]{36}$/);
    assert.equal(
      header.uuid,
      (await runChecked('cryptsetup', ['luksUUID', device], { timeoutMs: 10_000 })).trim(),
    );
    assert.deepEqual(header.keyslots, [0]);
    assert.equal(header.initialized, false);
    assert.equal(header.integrity, false);
  });

  it('tells the right key from a wrong one', async () => {
    await disk.format(first);
    assert.equal(await disk.testKey(first), true);
    assert.equal(await disk.testKey(second), false);
  });

  it('keys may hold any byte, line ends and NUL among them', async () => {
    const key = new Uint8Array(32).fill(0x0a);
    key[3] = 0;
    await disk.format(key);
    const next = new Uint8Array(32).fill(0);
    next[31] = 0x0a;
    await disk.rekey(key, next);
    assert.equal(await disk.testKey(next), true);
    assert.equal(await disk.testKey(key), false);
  });

  it('re-keys so that only the new key opens, and may be repeated', async () => {
    await disk.format(first);
    await disk.rekey(first, second);
    assert.equal(await disk.testKey(second), true);
    assert.equal(await disk.testKey(first), false);
    await disk.rekey(first, second);
    assert.equal((await disk.header()).keyslots.length, 1);
  });

  it('completes a re-key that was killed after the new key was added', async () => {
    await disk.format(first);
    const both = Buffer.concat([first, second]);
    await runChecked(
      'cryptsetup',
      [
        'luksAddKey',
        '--batch-mode',
        '--pbkdf',
        'pbkdf2',
        '--pbkdf-force-iterations',
        '1000',
        '--key-file',
        '-',
        '--keyfile-size',
        '32',
        device,
        '-',
      ],
      { stdin: both, timeoutMs: 10_000 },
    );
    assert.deepEqual((await disk.header()).keyslots, [0, 1]);
    await disk.rekey(first, second);
    assert.deepEqual((await disk.header()).keyslots, [1]);
    assert.equal(await disk.testKey(first), false);
    assert.equal(await disk.testKey(second), true);
  });

  it('refuses to re-key with a key that does not open the disk, and changes nothing', async () => {
    await disk.format(first);
    await assert.rejects(disk.rekey(second, new Uint8Array(randomBytes(32))), { code: 'ERR_DISK_WRONG_KEY' });
    assert.equal(await disk.testKey(first), true);
    assert.deepEqual((await disk.header()).keyslots, [0]);
  });

  it('keeps the initialised mark over a re-key', async () => {
    await disk.format(first);
    await disk.setInitialized(true);
    await disk.rekey(first, second);
    assert.equal((await disk.header()).initialized, true);
    await disk.setInitialized(false);
    assert.equal((await disk.header()).initialized, false);
  });

  it('writes the key token beside the mark, and keeps both over a re-key', async () => {
    await disk.format(first);
    await disk.setInitialized(true);
    const envelope = new TextEncoder().encode('{"kms":"/+"}');
    const two = {
      keys: [
        { name: '1.0', envelope },
        { name: '1.1', envelope },
      ],
      measurementSecret: envelope,
    };
    assert.equal(await disk.setKeyToken(two), true);
    assert.deepEqual((await disk.header()).keyToken, two);
    assert.equal(await disk.setKeyToken(two), false, 'it says so already');
    await disk.rekey(first, second);
    const { initialized, keyToken } = await disk.header();
    assert.deepEqual({ initialized, keyToken }, { initialized: true, keyToken: two });
    const one = { keys: [{ name: '1.1' }] };
    assert.equal(await disk.setKeyToken(one), true);
    assert.deepEqual((await disk.header()).keyToken, one);
    assert.equal(await disk.testKey(second), true);
  });

  it('the largest key token fits beside as many key slots as a re-key ever has', async () => {
    await disk.format(first);
    await disk.setInitialized(true);
    const sized = (bytes: number) => ({
      keys: [
        { name: '999999999.999999998', envelope: new Uint8Array(bytes) },
        { name: '999999999.999999999', envelope: new Uint8Array(bytes) },
      ],
      measurementSecret: new Uint8Array(bytes),
    });
    // A third of the limit each, in base64.
    let bytes = Math.floor((MAX_KEY_TOKEN_BYTES / 3) * (3 / 4));
    const length = (of: number): number | undefined => {
      try {
        return renderKeyToken(sized(of)).length;
      } catch {
        return undefined;
      }
    };
    while (length(bytes) === undefined) bytes--;
    assert.ok(length(bytes)! > MAX_KEY_TOKEN_BYTES - 16, `${length(bytes)} bytes`);
    await disk.setKeyToken(sized(bytes));
    // A re-key that was killed twice leaves three.
    for (const key of [second, new Uint8Array(randomBytes(32))]) {
      const args = ['luksAddKey', '--batch-mode', '--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000'];
      await runChecked('cryptsetup', [...args, '--key-file', '-', '--keyfile-size', '32', device, '-'], {
        stdin: Buffer.concat([first, key]),
        timeoutMs: 10_000,
      });
    }
    assert.equal((await disk.header()).keyslots.length, 3);
    await disk.rekey(first, second);
    assert.deepEqual((await disk.header()).keyToken, sized(bytes));
    assert.equal(await disk.testKey(second), true);
  });

  it('refuses keys of another length before any program runs', async () => {
    await assert.rejects(disk.format(new Uint8Array(31)), { code: 'ERR_DISK_KEY_LENGTH' });
    assert.deepEqual(await disk.inspect(), { kind: 'blank' });
  });

  it('never tries a key on a header that another format wrote', async () => {
    for (const [what, args] of [
      ['aes-cbc', ['--cipher', 'aes-cbc-essiv:sha256', '--key-size', '256']],
      ['sector 512', ['--cipher', 'aes-xts-plain64', '--key-size', '512', '--sector-size', '512']],
      ['half the key', ['--cipher', 'aes-xts-plain64', '--key-size', '256', '--sector-size', '4096']],
    ] as const) {
      await runChecked(
        'cryptsetup',
        [
          'luksFormat',
          '--batch-mode',
          '--type',
          'luks2',
          ...args,
          '--pbkdf',
          'pbkdf2',
          '--pbkdf-force-iterations',
          '1000',
          '--key-file',
          '-',
          device,
        ],
        { stdin: first, timeoutMs: 10_000 },
      );
      await assert.rejects(disk.testKey(first), { code: 'ERR_DISK_HEADER' }, what);
    }
  });

  it('takes a disk whose first format was cut off as blank, one of ours with a torn header not', async () => {
    const header = await disk.format(first);
    const file = await open(device, 'r+');
    await file.write(Buffer.from('x'), 0, 1, 5000);
    const { uuid, keyslots } = await disk.header();
    assert.deepEqual({ uuid, keyslots }, { uuid: header.uuid, keyslots: [0] });
    assert.equal(await disk.testKey(first), true);
    assert.equal((await disk.inspect()).kind, 'formatted');
    await file.write(Buffer.from('x'), 0, 1, 0x4000 + 5000);
    await assert.rejects(disk.inspect(), { code: 'ERR_PARSE' });
    await file.write(new Uint8Array(4096), 0, 4096, 0x4000);
    assert.deepEqual(await disk.inspect(), { kind: 'blank' });
    await file.close();
  });

  it('refuses LUKS1', async () => {
    await runChecked(
      'cryptsetup',
      [
        'luksFormat',
        '--batch-mode',
        '--type',
        'luks1',
        '--pbkdf-force-iterations',
        '1000',
        '--key-file',
        '-',
        device,
      ],
      { stdin: first, timeoutMs: 10_000 },
    );
    await assert.rejects(disk.header(), { code: 'ERR_PARSE' });
    await assert.rejects(disk.inspect(), { code: 'ERR_PARSE' });
  });

  it('refuses a disk without integrity where the machine formats with it', async () => {
    await disk.format(first);
    const strict = new StateDisk({ device, mappable: true, scratch: `${folder}/scratch` });
    await assert.rejects(strict.testKey(first), { code: 'ERR_DISK_HEADER' });
  });

  it('refuses a flipped bit in the key slot as a wrong key, not as success', async () => {
    await disk.format(first);
    const file = await open(device, 'r+');
    await file.write(new Uint8Array(4096).fill(0x55), 0, 4096, 32768);
    await file.close();
    assert.equal(await disk.testKey(first), false);
  });

  it('leaves no copy of the header behind', async () => {
    await disk.format(first);
    await disk.testKey(second);
    assert.deepEqual(await readdir(`${folder}/scratch`), []);
  });

  it('fails on a disk that is missing or ends too early', async () => {
    const missing = new StateDisk({
      device: `${folder}/none`,
      ...NO_INTEGRITY,
      scratch: `${folder}/scratch`,
    });
    await assert.rejects(missing.inspect(), { code: 'ENOENT' });
    await disk.format(first);
    await truncate(device, LUKS2_DATA_OFFSET - 4096);
    await assert.rejects(disk.testKey(first), { code: 'ERR_PARSE' });
  });

  it('says that it cannot map without device-mapper', async () => {
    await disk.format(first);
    await assert.rejects(disk.map('asterism-test', first), { code: 'ERR_DISK_NO_DEVICE_MAPPER' });
  });

  describe('with device-mapper', async () => {
    const skip = (await hasDeviceMapper()) ? false : 'this kernel has no device-mapper';
    const name = `asterism-test-${randomBytes(4).toString('hex')}`;
    const mappable = () => new StateDisk({ device, mappable: true, scratch: `${folder}/scratch` });
    const mappingsOfTest = async () => (await activeMappings()).filter((one) => one.startsWith(name));

    it('formats with integrity, and after the wipe every sector reads as zeros', { skip }, async () => {
      const full = mappable();
      const header = await full.format(first);
      assert.equal(header.integrity, true);
      await full.wipe(name, first);
      assert.deepEqual(await mappingsOfTest(), []);
      const mapped = await full.map(name, first);
      try {
        const content = await readFile(mapped);
        assert.ok(content.length > 8 * 1024 * 1024);
        assert.ok(content.every((byte) => byte === 0));
      } finally {
        await full.unmap(name);
      }
      assert.deepEqual(await mappingsOfTest(), []);
    });

    it('re-keys and marks a volume that is mapped, which stays as it is', { skip }, async () => {
      const full = mappable();
      const { uuid, volume } = await full.format(first);
      await full.wipe(name, first);
      const mapped = await full.map(name, first);
      try {
        await writeFile(mapped, 'written before', { flag: 'r+', flush: true });
        await full.rekey(first, second);
        await full.setInitialized(true);
        await full.setKeyToken({ keys: [{ name: '1.1' }] });
      } finally {
        await full.unmap(name);
      }
      const header = await full.header();
      assert.deepEqual([header.uuid, header.volume, header.initialized], [uuid, volume, true]);
      assert.deepEqual(header.keyToken, { keys: [{ name: '1.1' }] });
      await assert.rejects(full.map(name, first), { code: 'ERR_DISK_WRONG_KEY' });
      await full.map(name, second);
      try {
        assert.equal((await readFile(mapped)).toString('latin1', 0, 14), 'written before');
      } finally {
        await full.unmap(name);
      }
    });

    it('gives no data for a sector that was changed on the disk', { skip }, async () => {
      const full = mappable();
      await full.format(first);
      await full.wipe(name, first);
      const file = await open(device, 'r+');
      await file.write(new Uint8Array(4096).fill(0xa5), 0, 4096, 40 * 1024 * 1024);
      await file.close();
      const mapped = await full.map(name, first);
      try {
        await assert.rejects(readFile(mapped), { code: 'EIO' });
      } finally {
        await full.unmap(name);
      }
    });

    it('unmaps what was left half made, and nothing twice', { skip }, async () => {
      const full = mappable();
      await full.format(first);
      await full.map(name, first);
      await runChecked('dmsetup', ['remove', '--retry', name], { timeoutMs: 60_000 });
      assert.deepEqual(await mappingsOfTest(), [`${name}_dif`]);
      await full.unmap(name);
      assert.deepEqual(await mappingsOfTest(), []);
      await full.unmap(name);
    });

    it('does not map with a wrong key', { skip }, async () => {
      const full = mappable();
      await full.format(first);
      await assert.rejects(full.map(name, second), { code: 'ERR_DISK_WRONG_KEY' });
      assert.deepEqual(await mappingsOfTest(), []);
    });
  });
});
