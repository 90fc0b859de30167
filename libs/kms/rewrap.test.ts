import assert from 'node:assert/strict';
import { createCipheriv, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { toUtf8 } from '@asterism/bytes/encoding';
import { openDek, parseEnvelope, renderEnvelope, sealDek } from './envelope.ts';
import { KmsError, KmsUnavailableError } from './errors.ts';
import { MemoryKek, MemoryStore } from './memory.fixture.ts';
import { type RewrapOptions, type RewrapResult, rewrapAll } from './rewrap.ts';

const clusterId = 'c1'.repeat(32);
const throttled = (retryAfterMs?: number) =>
  new KmsUnavailableError(
    'ERR_KMS_THROTTLED',
    'slow down',
    retryAfterMs === undefined ? {} : { retryAfterMs },
  );

async function world(count: number) {
  const store = new MemoryStore();
  const from = { kek: new MemoryKek('old'), generation: 1 };
  const to = { kek: new MemoryKek('new'), generation: 2 };
  const deks = new Map<string, Uint8Array>();
  const put = async (dekId: string, by = from, cluster = clusterId) => {
    const dek = new Uint8Array(randomBytes(32));
    const binding = { dekId, clusterId: cluster, generation: by.generation };
    store.objects.set(dekId, renderEnvelope(await sealDek(by.kek, binding, dek)));
    deks.set(dekId, dek);
  };
  for (let i = 0; i < count; i++) await put(`key-${i}`);
  const options = { from, to, store, clusterId, retry: { deadlineMs: 5000 } };
  /** All keys are what they were, and the target alone opens them. */
  const assertDone = async () => {
    for (const [dekId, dek] of deks) {
      const envelope = parseEnvelope(store.objects.get(dekId)!);
      assert.deepEqual(await openDek(to.kek, envelope, { dekId, clusterId, generation: 2 }), dek);
    }
  };
  return { store, from, to, deks, put, options, assertDone };
}

test('every key is wrapped anew, once; again, it is only proved', async () => {
  const { store, from, options, assertDone } = await world(100);
  store.objects.set('readme.txt', toUtf8('not ours'));
  const seen: number[] = [];
  const result = await rewrapAll({ ...options, onProgress: ({ total }) => seen.push(total) });
  assert.deepEqual(result, {
    total: 100,
    rewrapped: 100,
    alreadyDone: 0,
    failedCount: 0,
    failed: [],
    foreign: 1,
  });
  assert.deepEqual(
    seen,
    Array.from({ length: 100 }, (_, i) => i + 1),
  );
  await assertDone();
  const before = new Map(store.objects);
  from.kek.before = async () => assert.fail('the old KEK is not needed any more');
  const again = await rewrapAll(options);
  assert.deepEqual(again, {
    total: 100,
    rewrapped: 0,
    alreadyDone: 100,
    failedCount: 0,
    failed: [],
    foreign: 1,
  });
  assert.deepEqual(store.objects, before);
});

test('a newer version of the same key', async () => {
  const { store, to, options, assertDone } = await world(5);
  await rewrapAll(options);
  const key = randomBytes(32);
  const older = { kek: new MemoryKek('key:1', key), generation: 2 };
  const newer = { kek: new MemoryKek('key:2', key), generation: 2 };
  await rewrapAll({ ...options, from: to, to: { ...older, generation: 3 } });
  assert.equal((await rewrapAll({ ...options, from: older, to: { ...newer, generation: 3 } })).rewrapped, 5);
  for (const bytes of store.objects.values()) assert.equal(parseEnvelope(bytes).wrapped.keyId, 'key:2');
  await rewrapAll({ ...options, from: { ...newer, generation: 3 }, to: { ...to, generation: 4 } });
  assert.equal(store.objects.size, 5);
  await assert.rejects(assertDone(), { code: 'ERR_ENVELOPE_GENERATION' });
});

test('ended at any exchange, it goes on where it was', async () => {
  const { store, to, options, assertDone } = await world(12);
  let runs = 0;
  let result: RewrapResult | undefined;
  while (result === undefined) {
    // Each life is longer by a few exchanges, and dies in the middle of one.
    let left = 5 + 3 * runs++;
    const power = new AbortController();
    const exchange = async () => {
      if (left-- === 0) power.abort(new Error('power cut'));
      power.signal.throwIfAborted();
    };
    store.before = exchange;
    to.kek.before = exchange;
    result = await rewrapAll({ ...options, concurrency: 3, signal: power.signal }).catch((error) => {
      assert.match(error.message, /power cut/);
      return undefined;
    });
  }
  assert.ok(runs > 5);
  assert.equal(result.failedCount, 0);
  store.before = async () => {};
  to.kek.before = async () => {};
  await assertDone();
});

test('a KMS that throttles in bursts makes it slower, and no key fails', { timeout: 30_000 }, async () => {
  const { to, from, options, assertDone } = await world(30);
  let calls = 0;
  const burst = async () => {
    if (Math.floor(calls++ / 10) % 2 === 1) throw throttled(10);
  };
  to.kek.before = burst;
  from.kek.before = burst;
  const result = await rewrapAll({ ...options, concurrency: 8, retry: { deadlineMs: 20_000 } });
  assert.equal(result.rewrapped, 30);
  to.kek.before = async () => {};
  await assertDone();
});

test('a KMS that stays away, and one that refuses whatever key it is, end the run', async () => {
  const { to, store, options } = await world(20);
  const before = new Map(store.objects);
  to.kek.before = async () => {
    throw new KmsUnavailableError('ERR_KMS_UNAVAILABLE', 'down');
  };
  await assert.rejects(rewrapAll({ ...options, retry: { tries: 2 } }), { code: 'ERR_KMS_UNAVAILABLE' });
  to.kek.before = async () => {
    throw new KmsError('ERR_KMS_KEY_DISABLED', 'disabled');
  };
  await assert.rejects(rewrapAll(options), { code: 'ERR_KMS_KEY_DISABLED' });
  assert.deepEqual(store.objects, before);
});

test('keys that cannot be read stay as they are and are named; the others are done', async () => {
  const { store, from, put, deks, options, assertDone } = await world(6);
  const bad = ['key-swapped-1', 'key-swapped-2', 'key-cluster', 'key-future', 'key-cut', 'key-flipped'];
  for (const id of bad) await put(id);
  const [one, two] = [store.objects.get('key-swapped-1')!, store.objects.get('key-swapped-2')!];
  store.objects.set('key-swapped-1', two);
  store.objects.set('key-swapped-2', one);
  await put('key-cluster', from, 'c2'.repeat(32));
  await put('key-future', { ...from, generation: 7 });
  store.objects.set('key-cut', store.objects.get('key-cut')!.slice(0, -10));
  const flipped = parseEnvelope(store.objects.get('key-flipped')!);
  flipped.ciphertext[0]! ^= 1;
  store.objects.set('key-flipped', renderEnvelope(flipped));
  const before = new Map(bad.map((id) => [id, store.objects.get(id)]));
  const result = await rewrapAll(options);
  assert.deepEqual(Object.fromEntries(result.failed.map(({ id, error }) => [id, error.code])), {
    'key-swapped-1': 'ERR_ENVELOPE_ID',
    'key-swapped-2': 'ERR_ENVELOPE_ID',
    'key-cluster': 'ERR_ENVELOPE_CLUSTER',
    'key-future': 'ERR_ENVELOPE_GENERATION',
    'key-cut': 'ERR_ENVELOPE',
    'key-flipped': 'ERR_ENVELOPE_FORGED',
  });
  assert.equal(result.total, 12);
  assert.equal(result.rewrapped, 6);
  assert.deepEqual(new Map(bad.map((id) => [id, store.objects.get(id)])), before);
  for (const id of bad) deks.delete(id);
  await assertDone();
});

test('of thousands that fail, a hundred are named and all are counted', async () => {
  const { store, options } = await world(0);
  for (let i = 0; i < 1000; i++) store.objects.set(`key-${i}`, toUtf8('{}'));
  const result = await rewrapAll(options);
  assert.deepEqual([result.total, result.failedCount, result.failed.length], [1000, 1000, 100]);
});

test('what v2.6 wrapped is bound, where it is accepted', async () => {
  const { store, from, deks, options, assertDone } = await world(1);
  const [dek, key, iv] = [randomBytes(32), randomBytes(32), randomBytes(12)];
  const cipher = createCipheriv('aes-256-gcm', key, iv);
  const ciphertext = Buffer.concat([cipher.update(dek), cipher.final(), cipher.getAuthTag()]);
  const wrapped = from.kek.wrapV26(key);
  store.objects.set('key-v26', renderEnvelope({ binding: undefined, ciphertext, iv, wrapped }));
  deks.set('key-v26', new Uint8Array(dek));
  const refused = await rewrapAll(options);
  assert.deepEqual(
    refused.failed.map(({ error }) => error.code),
    ['ERR_ENVELOPE_V26'],
  );
  const accepted = await rewrapAll({ ...options, acceptV26Blobs: true });
  assert.deepEqual([accepted.rewrapped, accepted.alreadyDone], [1, 1]);
  await assertDone();
});

test('a KMS that wraps another key than it was given: nothing is written', async () => {
  const { store, to, options } = await world(3);
  const before = new Map(store.objects);
  const kek = Object.create(to.kek, {
    status: { value: () => to.kek.status() },
    wrap: { value: (_: Uint8Array, context: string) => to.kek.wrap(randomBytes(32), context) },
    unwrap: { value: to.kek.unwrap.bind(to.kek) },
  });
  const result = await rewrapAll({ ...options, to: { ...to, kek } });
  assert.equal(result.failedCount, 3);
  assert.deepEqual(store.objects, before);
});

test('a store that loses what it replaced, or that others write at the same time', async () => {
  const { store, options, assertDone } = await world(4);
  const lost = new MemoryStore();
  for (const [id, bytes] of store.objects) lost.objects.set(id, bytes);
  lost.replace = async () => 'replaced';
  const short = { retry: { tries: 1 } };
  await assert.rejects(rewrapAll({ ...options, store: lost, ...short }), { code: 'ERR_STORE_STALE' });
  // Two runs at once: each key is replaced by its version.
  const both = await Promise.all([rewrapAll(options), rewrapAll(options)]);
  for (const { total, failedCount } of both) assert.deepEqual([total, failedCount], [4, 0]);
  await assertDone();
});

test('an earlier generation is no target, and an aborted run says why', async () => {
  const { from, to, options } = await world(1);
  await assert.rejects(rewrapAll({ ...options, from: to, to: from }), { code: 'ERR_KMS_SETTINGS' });
  await assert.rejects(rewrapAll({ ...options, signal: AbortSignal.abort(new Error('enough')) }), /enough/);
  const failing: RewrapOptions = { ...options };
  options.store.before = async (what) => {
    if (what === 'list') throw new KmsUnavailableError('ERR_STORE_THROTTLED', 'slow down');
  };
  await assert.rejects(rewrapAll(failing), { code: 'ERR_STORE_THROTTLED' });
});
