import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NO_STORE_URI, renderClusterKmsUri } from '@asterism/kms/cluster-uri';
import { KmsError, KmsUnavailableError } from '@asterism/kms/errors';
import type { HomeConfiguration } from '@asterism/kms/key-configuration';
import { MemoryKek, MemoryStore } from '@asterism/kms/memory.fixture';
import { openKeyHome } from '@asterism/kms/open';
import { storedKeys } from '@asterism/kms/stored-keys';
import type { KeyHome } from '@asterism/kms/types';
import { parseKmsUri } from '@asterism/kms/uri';
import { KeyHomes, type KeyHomesOptions } from './key-homes.ts';

const bytes = (value: number) => new Uint8Array(32).fill(value);
const pinned = { measurementSecret: bytes(9) };
const derived = (generation: number): HomeConfiguration => ({
  kmsUri: renderClusterKmsUri({
    key: bytes(generation),
    salt: bytes(7),
    ...(generation > 1 && { generation, ...pinned }),
  }),
  storageUri: NO_STORE_URI,
});
const clusterId = 'ab'.repeat(32);
const external = (generation: number): HomeConfiguration => ({
  kmsUri: `kms://vault?address=https%3A%2F%2Fbao&keyName=k&clusterID=${clusterId}&generation=${generation}`,
  storageUri: 'storage://kubernetes',
});

function homesOf(open: KeyHomesOptions['open'], graceMs = 20) {
  const errors: unknown[] = [];
  const options = { open, log: { error: (fields: object) => errors.push(fields) }, graceMs };
  return { homes: new KeyHomes(options), errors, options };
}

describe('the key homes of a cluster', () => {
  it('gives nothing before there is a configuration', async () => {
    const { homes } = homesOf(openKeyHome);
    assert.equal(homes.generation, 0);
    await assert.rejects(homes.dataKey('key-x', 32, 0), { code: 'ERR_KEY_CONFIGURATION' });
  });

  it('derived keys: each generation has its own, while it is there', async () => {
    const { homes } = homesOf(openKeyHome);
    await homes.configure({ homes: [derived(1)] });
    const first = await homes.dataKey('key-x', 32, 0);
    assert.deepEqual([first.generation, first.envelope.length], [1, 0]);
    await homes.configure({ homes: [derived(1), derived(2)] });
    const second = await homes.dataKey('key-x', 32, 0);
    assert.equal(second.generation, 2);
    assert.notDeepEqual(second.dataKey, first.dataKey);
    assert.deepEqual((await homes.dataKey('key-x', 32, 1)).dataKey, first.dataKey);
    assert.deepEqual((await homes.dataKey('key-measurementSecret', 32, 0)).dataKey, bytes(9));
    await homes.configure({ homes: [derived(2)] });
    await assert.rejects(homes.dataKey('key-x', 32, 1), { code: 'ERR_KEY_GENERATION' });
    await assert.rejects(homes.dataKey('key-x', 32, 3), { code: 'ERR_KEY_GENERATION' });
    assert.deepEqual((await homes.dataKey('key-x', 32, 2)).dataKey, second.dataKey);
  });

  it('stored keys: a key keeps its value while it is wrapped anew, whatever generation is asked for', async () => {
    const store = new MemoryStore();
    const keks = new Map([1, 2].map((generation) => [generation, new MemoryKek(`kek-${generation}`)]));
    const opened: string[] = [];
    const { homes } = homesOf(async ({ kmsUri, previous }) => {
      const { generation } = parseKmsUri(kmsUri);
      opened.push(`${generation}${previous ? ' with the one before' : ''}`);
      return storedKeys({
        kek: keks.get(generation)!,
        store,
        clusterId,
        generation,
        ...(previous && { previous: { kek: keks.get(1)!, generation: 1 } }),
      });
    });
    await homes.configure({ homes: [external(1)] });
    const before = await homes.dataKey('key-x', 32, 0);
    assert.match(Buffer.from(before.envelope).toString(), /"generation":1/);
    await homes.configure({ homes: [external(1), external(2)] });
    for (const generation of [0, 1, 2, 9])
      assert.deepEqual((await homes.dataKey('key-x', 32, generation)).dataKey, before.dataKey);
    assert.match(Buffer.from((await homes.dataKey('key-new', 32, 0)).envelope).toString(), /"generation":2/);
    assert.deepEqual(opened, ['1', '2 with the one before']);
  });

  it('a configuration that cannot be opened changes nothing, and what it had opened is closed', async () => {
    let closed = 0;
    const { homes } = homesOf(async (configuration) => {
      if (configuration.kmsUri === derived(3).kmsUri) throw new Error('no such KMS');
      const home = await openKeyHome(configuration);
      return { ...home, close: async () => void closed++ } satisfies KeyHome;
    });
    await homes.configure({ homes: [derived(1)] });
    await assert.rejects(homes.configure({ homes: [derived(2), derived(3)] }), /no such KMS/);
    await assert.rejects(homes.configure({ homes: [derived(2), derived(1)] }), {
      code: 'ERR_KEY_CONFIGURATION',
    });
    assert.equal(homes.generation, 1);
    assert.equal(closed, 2);
    await homes.dataKey('key-x', 32, 1);
  });

  it('a home that goes ends its calls first; one that stays is not opened again', async () => {
    let opened = 0;
    let closed = 0;
    const { homes } = homesOf(async (configuration) => {
      opened++;
      return { ...(await openKeyHome(configuration)), close: async () => void closed++ };
    });
    await homes.configure({ homes: [derived(1)] });
    await homes.configure({ homes: [derived(1), derived(2)] });
    assert.deepEqual([opened, closed], [2, 0]);
    await homes.configure({ homes: [derived(2)] });
    assert.deepEqual([opened, closed], [2, 1]);
  });

  /** Stored keys in memory; generation 1 waits in `gate` before it wraps. */
  function stored(gate: () => Promise<void>, more: Partial<KeyHome> = {}) {
    const store = new MemoryStore();
    const keks = new Map([1, 2].map((generation) => [generation, new MemoryKek(`kek-${generation}`)]));
    keks.get(1)!.before = async (what) => (what === 'wrap' ? gate() : undefined);
    const made = homesOf(async ({ kmsUri, previous }) => {
      const { generation } = parseKmsUri(kmsUri);
      const home = storedKeys({
        ...{ kek: keks.get(generation)!, store, clusterId, generation, retry: { tries: 1 } },
        ...(previous && { previous: { kek: keks.get(1)!, generation: 1 } }),
      });
      return previous === undefined ? home : Object.assign(home, more);
    });
    return { ...made, store, keks };
  }

  it('a configuration is in force only when nobody makes a key by the former one any more', async () => {
    let release = () => {};
    const { options, store } = stored(() => new Promise((resolve) => (release = resolve)));
    const graceful = new KeyHomes({ ...options, graceMs: 20_000 });
    await graceful.configure({ homes: [external(1)] }, '1');
    const late = graceful.dataKey('key-late', 32, 0);
    await sleep(20);
    const configured = graceful.configure({ homes: [external(1), external(2)] }, '2');
    await sleep(100);
    // New keys are of the new generation at once, but the version is not said to be in force.
    assert.match(Buffer.from((await graceful.dataKey('key-x', 32, 0)).envelope).toString(), /"generation":2/);
    assert.deepEqual([graceful.version, graceful.configuration?.homes.length], ['1', 1]);
    release();
    await late;
    await configured;
    assert.deepEqual([graceful.version, graceful.configuration?.homes.length], ['2', 2]);
    assert.match(Buffer.from(store.objects.get('key-late')!).toString(), /"generation":1/);
  });

  it('a call that does not end in time is ended, and makes no key afterwards', async () => {
    let release = () => {};
    const { homes, store } = stored(() => new Promise((resolve) => (release = resolve)));
    await homes.configure({ homes: [external(1)] }, '1');
    const late = homes.dataKey('key-late', 32, 0);
    late.catch(() => {});
    await sleep(20);
    await homes.configure({ homes: [external(1), external(2)] }, '2');
    release();
    await assert.rejects(late, { code: 'ERR_KMS_CLOSED' });
    assert.equal(store.objects.has('key-late'), false);
    const again = await homes.dataKey('key-late', 32, 0);
    assert.match(Buffer.from(again.envelope).toString(), /"generation":2/);
  });

  it('a rotation to a key that is not there, or is disabled, changes nothing; a fresh start still gives keys', async () => {
    for (const [status, code] of [
      [async () => ({ keyId: 'k', enabled: false, detail: '' }), 'ERR_KMS_KEY_DISABLED'],
      [
        async () => {
          throw new KmsError('ERR_KMS_KEY_NOT_FOUND', 'no such key');
        },
        'ERR_KMS_KEY_NOT_FOUND',
      ],
    ] as const) {
      const { homes, options } = stored(async () => {}, { status });
      await homes.configure({ homes: [external(1)] }, '1');
      const { dataKey } = await homes.dataKey('key-x', 32, 0);
      await assert.rejects(homes.configure({ homes: [external(1), external(2)] }, '2'), { code });
      assert.deepEqual([homes.version, homes.generation], ['1', 1]);
      assert.match(Buffer.from((await homes.dataKey('key-y', 32, 0)).envelope).toString(), /"generation":1/);
      const started = new KeyHomes(options);
      await started.configure({ homes: [external(1), external(2)] }, '2');
      assert.deepEqual((await started.dataKey('key-x', 32, 0)).dataKey, dataKey);
    }
  });

  it('what is cached is given while the KMS is down, what is not is an error that says so', async () => {
    const { homes, keks } = stored(async () => {});
    await homes.configure({ homes: [external(1)] });
    const known = await homes.dataKey('key-x', 32, 0);
    keks.get(1)!.before = async () => {
      throw new KmsUnavailableError('ERR_KMS_THROTTLED', 'too busy');
    };
    assert.deepEqual(await homes.dataKey('key-x', 32, 0), known);
    await assert.rejects(homes.dataKey('key-y', 32, 0), { code: 'ERR_KMS_THROTTLED' });
  });
});
