import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFile, open, readFile, truncate, writeFile } from 'node:fs/promises';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { ProgramResult } from '@asterism/runtime/program';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { Cryptsetup } from './cryptsetup.ts';
import { HeaderCopy, readHeaderArea, writeHeaderArea } from './header-copy.ts';
import { LUKS2_DATA_OFFSET, validateHeaderArea } from './luks2-header.ts';
import { StateDisk } from './state-disk.ts';

const OLD = new Uint8Array(randomBytes(32));
const NEW = new Uint8Array(randomBytes(32));
/** Of the provider's own disk. */
const EVIL = new Uint8Array(randomBytes(32));

/** The real program; `before` comes in front of each of its runs. */
class WatchedCryptsetup extends Cryptsetup {
  readonly runs: string[][] = [];
  before: (run: number, args: readonly string[]) => Promise<void> = async () => {};

  override async run(args: readonly string[], ...rest: [Uint8Array, AbortSignal?]): Promise<ProgramResult> {
    await this.before(this.runs.length, args);
    this.runs.push([...args]);
    return super.run(args, ...rest);
  }
}

describe('a header that changes while it is worked with', () => {
  let folder: TemporaryFolder;
  let pristine: string;
  let evil: string;
  let device: string;
  let cryptsetup: WatchedCryptsetup;
  let disk: StateDisk;

  const place = () => ({ device, integrity: false, scratch: folder.file('scratch') });
  const diskAt = (path: string, program = new Cryptsetup()) =>
    new StateDisk({ device: path, mappable: false, scratch: folder.file('scratch'), cryptsetup: program });

  /** A disk of our own format, formatted with `key`. */
  async function formatted(path: string, key: Uint8Array): Promise<string> {
    await writeFile(path, '');
    await truncate(path, 24 * 1024 * 1024);
    await diskAt(path).format(key);
    return path;
  }

  async function overwrite(path: string, area: Uint8Array): Promise<void> {
    const file = await open(path, 'r+');
    await file.write(area, 0, area.length, 0);
    await file.close();
  }

  before(async () => {
    folder = await temporaryFolder();
    pristine = await formatted(folder.file('pristine.img'), OLD);
    evil = await formatted(folder.file('evil.img'), EVIL);
  });
  after(() => folder[Symbol.asyncDispose]());
  beforeEach(async () => {
    device = folder.file('disk.img');
    await copyFile(pristine, device);
    cryptsetup = new WatchedCryptsetup();
    disk = diskAt(device, cryptsetup);
  });

  for (const [name, work, key] of [
    ['a re-key', () => disk.rekey(OLD, NEW), NEW],
    ['the mark of a member', () => disk.setInitialized(true), OLD],
    ['the key token', () => disk.setKeyToken({ keys: [{ name: '1.0' }] }), OLD],
  ] as const) {
    it(`${name}: swapped before any step, no key is tried on the other header, and ours is put back`, async () => {
      await work();
      const steps = cryptsetup.runs.length;
      assert.ok(steps > 0);
      const { volume, uuid } = await diskAt(pristine).header();
      const swapped = await readHeaderArea(evil);
      for (let step = 0; step < steps; step++) {
        await copyFile(pristine, device);
        cryptsetup = new WatchedCryptsetup();
        cryptsetup.before = async (run) => {
          if (run === step) await overwrite(device, swapped);
        };
        disk = diskAt(device, cryptsetup);
        await work();
        assert.ok(
          cryptsetup.runs.every((args) => !args.includes(device)),
          `step ${step}: the disk itself was given`,
        );
        const header = await disk.header();
        assert.deepEqual(
          [header.uuid, header.volume, header.keyslots.length],
          [uuid, volume, 1],
          `step ${step}`,
        );
        assert.equal(await disk.testKey(key), true);
        assert.equal(await disk.testKey(EVIL), false);
      }
    });
  }

  it('keys go to the program by its standard input: none is among its arguments, in whatever encoding', async () => {
    await disk.format(OLD);
    await disk.rekey(OLD, NEW);
    assert.equal(await disk.testKey(NEW), true);
    const told = cryptsetup.runs.flat().join(' ');
    assert.ok(cryptsetup.runs.length >= 4, told);
    for (const key of [OLD, NEW].map((bytes) => Buffer.from(bytes))) {
      for (const encoding of ['hex', 'base64', 'base64url', 'latin1', 'utf8'] as const)
        assert.ok(!told.includes(key.toString(encoding)), encoding);
    }
  });

  it('a key is proven on the judged copy, whatever the disk says by then', async () => {
    cryptsetup.before = async () => overwrite(device, await readHeaderArea(evil));
    assert.equal(await disk.testKey(OLD), true);
    cryptsetup.before = async () => overwrite(device, new Uint8Array(LUKS2_DATA_OFFSET));
    assert.equal(await disk.testKey(OLD), false, 'the swapped header is what is judged now');
  });

  it('keys are not tried at all on a swapped header that is none of ours', async () => {
    const area = await readHeaderArea(evil);
    area[4096 + 20]! ^= 1;
    area[0x4000 + 4096 + 20]! ^= 1;
    await overwrite(device, area);
    for (const work of [() => disk.rekey(OLD, NEW), () => disk.testKey(OLD), () => disk.setInitialized(true)])
      await assert.rejects(work(), { code: 'ERR_PARSE' });
    assert.deepEqual(cryptsetup.runs, []);
  });

  it('a copy that has become that of another volume is not written back', async () => {
    const before = await readFile(device);
    const other = await readHeaderArea(evil);
    await assert.rejects(
      HeaderCopy.use(place(), async (copy) => {
        await overwrite(copy.path, other);
        await copy.writeBack();
      }),
      { code: 'ERR_DISK_HEADER' },
    );
    assert.ok((await readFile(device)).equals(before));
  });

  describe('a re-key that is cut off', () => {
    /** The header areas that a re-key leaves on the disk one after the other. */
    async function stages(): Promise<Uint8Array[]> {
      const areas = [await readHeaderArea(device)];
      cryptsetup.before = async (_, [command]) => {
        if (command === 'luksKillSlot') areas.push(await readHeaderArea(device));
      };
      await disk.rekey(OLD, NEW);
      areas.push(await readHeaderArea(device));
      assert.equal(areas.length, 3);
      return areas;
    }

    /** The parts in which an area is written, as they come. */
    async function writesOf(area: Uint8Array): Promise<{ at: number; bytes: Uint8Array }[]> {
      const parts: { at: number; bytes: Uint8Array }[] = [];
      const { headerSize } = await validateHeaderArea(area, false);
      const file = {
        async write(bytes: Uint8Array, from: number, length: number, at: number) {
          // No more than this at a time: a write can be cut off between any two pages.
          const bytesWritten = Math.min(length, at < 2 * headerSize ? 4096 : 128 * 1024);
          parts.push({ at, bytes: bytes.slice(from, from + bytesWritten) });
          return { bytesWritten, buffer: bytes };
        },
        datasync: async () => {},
      };
      await writeHeaderArea(file as never, area, headerSize);
      return parts;
    }

    it('anywhere leaves a disk that one of the two keys opens, and is completed by another', async () => {
      const [before, added, killed] = (await stages()) as [Uint8Array, Uint8Array, Uint8Array];
      for (const [from, to] of [
        [before, added],
        [added, killed],
      ] as const) {
        const onDisk = Uint8Array.from(from);
        for (const { at, bytes } of await writesOf(to)) {
          const changes = !Buffer.from(onDisk.buffer, at, bytes.length).equals(bytes);
          onDisk.set(bytes, at);
          if (!changes) continue;
          await overwrite(device, onDisk);
          const cut = diskAt(device);
          const opens = [await cut.testKey(OLD), await cut.testKey(NEW)];
          assert.ok(opens.includes(true), `cut at ${at}`);
          await cut.rekey(OLD, NEW);
          assert.deepEqual([await cut.testKey(OLD), await cut.testKey(NEW)], [false, true], `cut at ${at}`);
          assert.equal((await cut.header()).keyslots.length, 1);
        }
        assert.deepEqual(onDisk, to);
      }
    });

    it('leaves nothing of the old key slot when it is complete', async () => {
      const [before, , killed] = (await stages()) as [Uint8Array, Uint8Array, Uint8Array];
      const slot = before.subarray(0x8000, 0x8000 + 258_048);
      for (let at = 0; at < slot.length; at += 4096)
        assert.notDeepEqual(killed.subarray(0x8000 + at, 0x8000 + at + 4096), slot.subarray(at, at + 4096));
    });
  });
});
