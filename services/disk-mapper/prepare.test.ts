import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { access, mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { StateDisk } from '@asterism/disk/state-disk';
import { clusterIdPcr } from '@asterism/runtime/machine-tpm';
import { memoryTpm } from './disk-mapper.fixture.ts';
import { type PrepareOptions, prepareStateDisk } from './prepare.ts';
import { PlainVolume } from './state-volume.ts';

const quiet = { info() {} };

describe('prepare', () => {
  let folder: string;
  let disk: StateDisk;
  let tpm: ReturnType<typeof memoryTpm>;
  let unlocked: string[];
  let options: PrepareOptions;

  beforeEach(async () => {
    folder = await mkdtemp(`${tmpdir()}/asterism-mapper-`);
    const device = `${folder}/disk.img`;
    await writeFile(device, '');
    await truncate(device, 32 * 1024 * 1024);
    disk = new StateDisk({ device, mappable: false, scratch: `${folder}/scratch` });
    tpm = memoryTpm();
    unlocked = [];
    options = {
      disk,
      tpm,
      volume: new PlainVolume(`${folder}/state`),
      temporaryKeyFile: `${folder}/state.key`,
      log: quiet,
      signal: new AbortController().signal,
      unlock: async (uuid) => {
        unlocked.push(uuid);
      },
    };
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const temporaryKey = async (): Promise<Uint8Array> =>
    Uint8Array.from(await readFile(`${folder}/state.key`));

  it('formats a blank disk and leaves its passphrase, mode 0400', async () => {
    assert.equal(await prepareStateDisk(options), 'formatted');
    assert.equal(await disk.testKey(await temporaryKey()), true);
    assert.equal((await disk.header()).initialized, false);
  });

  it('keeps what this boot has formatted, formats anew what an earlier boot has', async () => {
    await prepareStateDisk(options);
    const { uuid } = await disk.header();
    assert.equal(await prepareStateDisk(options), 'kept');
    assert.equal((await disk.header()).uuid, uuid);
    await rm(`${folder}/state.key`);
    await mkdir(`${folder}/state/asterism`, { recursive: true });
    await writeFile(`${folder}/state/asterism/init-journal.json`, '{}');
    assert.equal(await prepareStateDisk(options), 'formatted');
    assert.notEqual((await disk.header()).uuid, uuid);
    await assert.rejects(access(`${folder}/state/asterism/init-journal.json`), { code: 'ENOENT' });
  });

  it("never formats a member's disk: it gets it unlocked, once per boot", async () => {
    await prepareStateDisk(options);
    await disk.setInitialized(true);
    await rm(`${folder}/state.key`);
    const { uuid } = await disk.header();
    assert.equal(await prepareStateDisk(options), 'unlocked');
    assert.deepEqual(unlocked, [uuid]);
    tpm.pcr = clusterIdPcr(new Uint8Array(32));
    assert.equal(await prepareStateDisk(options), 'kept');
    assert.deepEqual(unlocked, [uuid]);
  });

  it('clears what an earlier life left where it was killed between the format and the volume', async () => {
    await prepareStateDisk(options);
    const left = `${folder}/state/var/lib/etcd/member`;
    await mkdir(dirname(left), { recursive: true });
    await writeFile(left, 'of the former life');
    // The next life's format is done, its volume is not.
    const key = Uint8Array.from(randomBytes(32));
    await rm(`${folder}/state.key`);
    await writeFile(`${folder}/state.key`, key);
    const { uuid } = await disk.format(key);
    assert.equal(await prepareStateDisk(options), 'formatted');
    assert.notEqual((await disk.header()).uuid, uuid);
    await assert.rejects(access(left), { code: 'ENOENT' });
    assert.equal(await prepareStateDisk(options), 'kept');
  });

  it('ends at the signal, and is done anew at the next start', async () => {
    const stop = new AbortController();
    const volume = Object.assign(new PlainVolume(`${folder}/state`), {
      create: async (_key: Uint8Array, _uuid: string, signal: AbortSignal) => {
        stop.abort(new Error('SIGTERM'));
        signal.throwIfAborted();
      },
    });
    await assert.rejects(prepareStateDisk({ ...options, volume, signal: stop.signal }), /SIGTERM/);
    const { uuid } = await disk.header();
    await assert.rejects(prepareStateDisk({ ...options, signal: stop.signal }), /SIGTERM/);
    assert.equal((await disk.header()).uuid, uuid, 'nothing is begun after the signal');
    assert.equal(await prepareStateDisk(options), 'formatted');
  });

  it('formats anew what was formatted but never mounted', async () => {
    await prepareStateDisk(options);
    const { uuid } = await disk.header();
    const volume = Object.assign(new PlainVolume(`${folder}/state`), { isOpen: async () => false });
    assert.equal(await prepareStateDisk({ ...options, volume }), 'formatted');
    assert.notEqual((await disk.header()).uuid, uuid);
  });

  it("does not pass a member's disk off as open that is not mounted", async () => {
    await prepareStateDisk(options);
    await disk.setInitialized(true);
    tpm.pcr = clusterIdPcr(new Uint8Array(32));
    const volume = Object.assign(new PlainVolume(`${folder}/state`), { isOpen: async () => false });
    await assert.rejects(prepareStateDisk({ ...options, volume }), { code: 'ERR_NODE_STATE' });
  });

  it('refuses a foreign header and leaves it as it is', async () => {
    await disk.format(new Uint8Array(32).fill(3));
    const before = await readFile(disk.device);
    before[0x4000 + 8] = 0xff;
    before[5000]! ^= 1;
    await writeFile(disk.device, before);
    await assert.rejects(prepareStateDisk(options), { code: 'ERR_PARSE' });
    assert.ok((await readFile(disk.device)).equals(before));
  });

  it('refuses a new disk in a machine that is a member', async () => {
    tpm.pcr = clusterIdPcr(new Uint8Array(32));
    await assert.rejects(prepareStateDisk(options), { code: 'ERR_NODE_STATE' });
  });
});
