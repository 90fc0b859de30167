import assert from 'node:assert/strict';
import { createCipheriv, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseEnvelope, renderEnvelope, sealDek } from './envelope.ts';
import { KmsError, KmsUnavailableError } from './errors.ts';
import { MemoryKek, MemoryStore } from './memory.fixture.ts';
import { type StoredKeysOptions, storedKeys } from './stored-keys.ts';
import type { KeyObserver } from './types.ts';

const clusterId = 'c1'.repeat(32);
const ID = 'key-11111111-2222-3333-4444-555555555555';
const FAST = { tries: 2, deadlineMs: 2000 };

function world(options: Partial<StoredKeysOptions> = {}) {
  const kek = new MemoryKek('kek');
  const store = new MemoryStore();
  const open = (more: Partial<StoredKeysOptions> = {}) =>
    storedKeys({ kek, store, clusterId, generation: 1, retry: FAST, ...options, ...more });
  return { kek, store, open, keys: open() };
}

const down = (code: 'ERR_STORE_UNAVAILABLE' | 'ERR_KMS_THROTTLED' = 'ERR_STORE_UNAVAILABLE') =>
  new KmsUnavailableError(code, 'down');

test('the first request makes a key, and every later one gets it, of any manager', async () => {
  const { keys, open, store } = world();
  const dek = await keys.getDek(ID, 32);
  assert.equal(dek.length, 32);
  assert.ok(dek.some((byte) => byte !== 0));
  assert.deepEqual(await keys.getDek(ID, 32), dek);
  assert.deepEqual(await open().getDek(ID, 32), dek);
  assert.notDeepEqual(await keys.getDek(`${ID}.1`, 32), dek);
  assert.deepEqual([...store.objects.keys()], [ID, `${ID}.1`]);
  const stored = Buffer.from(store.objects.get(ID)!).toString();
  assert.ok(!stored.includes(Buffer.from(dek).toString('base64')));
});

test('whoever gets a key may zero it: it is a copy', async () => {
  const { keys } = world();
  const [one, two] = await Promise.all([keys.getDek(ID, 32), keys.getDek(ID, 32)]);
  const kept = Uint8Array.from(two);
  one.fill(0);
  assert.deepEqual(two, kept);
  two.fill(0);
  assert.deepEqual(await keys.getDek(ID, 32), kept);
});

test('two hundred first requests at once, by three managers, give one key', async () => {
  const { store, open, kek } = world();
  // Everybody sees that there is none before anybody creates one.
  let looked = 0;
  const gate = Promise.withResolvers<void>();
  store.before = async (what) => {
    if (what === 'get' && ++looked === 3) gate.resolve();
    if (what === 'create') await gate.promise;
  };
  const managers = [open(), open(), open()];
  const deks = await Promise.all(Array.from({ length: 200 }, (_, i) => managers[i % 3]!.getDek(ID, 32)));
  assert.equal(new Set(deks.map((dek) => Buffer.from(dek).toString('hex'))).size, 1);
  assert.deepEqual(await open().getDek(ID, 32), deks[0]);
  assert.ok(kek.calls <= 7, 'each manager asks once for all of its callers');
});

for (const entries of [0, 1])
  test(`a cache of ${entries} keys gives no zeroes to those who waited`, async () => {
    const { open } = world({ cache: { entries } });
    const keys = open();
    const ids = Array.from({ length: 20 }, (_, i) => `key-${i}`);
    const first = await Promise.all(ids.flatMap((id) => [keys.getDek(id, 32), keys.getDek(id, 32)]));
    const again = await Promise.all(ids.flatMap((id) => [open().getDek(id, 32), open().getDek(id, 32)]));
    assert.deepEqual(first, again);
    assert.ok(first.every((dek) => dek.some((byte) => byte !== 0)));
  });

test('a stored key of another length is not given out, nor a length that cannot be', async () => {
  const { keys, open } = world();
  await keys.getDek(ID, 96);
  for (const manager of [keys, open()])
    await assert.rejects(manager.getDek(ID, 32), { name: 'KmsError', code: 'ERR_DEK_LENGTH' });
  assert.equal((await keys.getDek(ID, 96)).length, 96);
  const outcomes = await Promise.allSettled([open().getDek('key-x', 32), keys.getDek('key-x', 64)]);
  assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  for (const length of [0, -1, 1.5, 97, Number.NaN])
    await assert.rejects(keys.getDek(ID, length), { code: 'ERR_DEK_LENGTH' });
});

test('what a store gives that is not the key of that id', async () => {
  const { store, keys, open, kek } = world();
  for (const id of ['key-a', 'key-b']) await keys.getDek(id, 32);
  const [a, b] = [store.objects.get('key-a')!, store.objects.get('key-b')!];
  const seal = async (change: object) => {
    const binding = { dekId: ID, clusterId, generation: 1, ...change };
    return renderEnvelope(await sealDek(kek, binding, new Uint8Array(32)));
  };
  const forged = parseEnvelope(a);
  const renamed = renderEnvelope({ ...forged, binding: { ...forged.binding!, dekId: ID } });
  for (const [what, bytes, code] of [
    ['swapped', b, 'ERR_ENVELOPE_ID'],
    ['renamed', renamed, 'ERR_KMS_UNWRAP'],
    ['truncated', a.slice(0, a.length / 2), 'ERR_ENVELOPE'],
    ['empty', new Uint8Array(), 'ERR_ENVELOPE'],
    ['of another cluster', await seal({ clusterId: 'c2'.repeat(32) }), 'ERR_ENVELOPE_CLUSTER'],
    ['of a later generation', await seal({ generation: 2 }), 'ERR_ENVELOPE_GENERATION'],
  ] as const) {
    store.objects.set(ID, bytes);
    await assert.rejects(open().getDek(ID, 32), { code }, what);
    assert.deepEqual(store.objects.get(ID), bytes, 'it is not written over');
  }
  store.objects.set('key-a', b);
  store.objects.set('key-b', a);
  await assert.rejects(open().getDek('key-a', 32), { name: 'VerificationError', code: 'ERR_ENVELOPE_ID' });
  await assert.rejects(open().wrapped('key-b'), { code: 'ERR_ENVELOPE_ID' });
});

test('while the KEK is rotated, keys of both generations are read, and new ones are of the later', async () => {
  const { store, keys, kek, open } = world();
  const dek = await keys.getDek(ID, 32);
  const later = { kek: new MemoryKek('later'), generation: 2 };
  await assert.rejects(open(later).getDek(ID, 32), { code: 'ERR_ENVELOPE_GENERATION' });
  const both = open({ ...later, previous: { kek, generation: 1 } });
  assert.equal(both.generation, 2);
  assert.deepEqual(await both.getDek(ID, 32), dek);
  await both.getDek('key-new', 32);
  assert.equal(parseEnvelope(store.objects.get('key-new')!).binding?.generation, 2);
  // A store that gives an old copy after the rotation is found out.
  await assert.rejects(open({ ...later }).getDek(ID, 32), { code: 'ERR_ENVELOPE_GENERATION' });
  await both.close();
  assert.ok(kek.closed && later.kek.closed);
});

test('what v2.6 wrapped is read where it is accepted', async () => {
  const { store, kek, open } = world();
  const [dek, key, iv] = [new Uint8Array(randomBytes(32)), randomBytes(32), randomBytes(12)];
  const cipher = createCipheriv('aes-256-gcm', key, iv);
  const info = kek.wrapV26(key);
  const blob = {
    ciphertext: Buffer.concat([cipher.update(dek), cipher.final(), cipher.getAuthTag()]).toString('base64'),
    iv: iv.toString('base64'),
    key_info: {
      mechanism: info.mechanism,
      key_id: info.keyId,
      wrapped_key: Buffer.from(info.wrappedKey).toString('base64'),
    },
  };
  store.objects.set(ID, Buffer.from(JSON.stringify(blob)));
  await assert.rejects(open().getDek(ID, 32), { name: 'VerificationError', code: 'ERR_ENVELOPE_V26' });
  await assert.rejects(open().wrapped(ID), { code: 'ERR_ENVELOPE_V26' });
  assert.deepEqual(await open({ acceptV26Blobs: true }).getDek(ID, 32), dek);
  const later = { kek: new MemoryKek('later'), generation: 2, previous: { kek, generation: 1 } };
  assert.deepEqual(await open({ ...later, acceptV26Blobs: true }).getDek(ID, 32), dek);
});

test('a store that loses what was written, or returns an older state: an error that may pass, and no key', async () => {
  const losing = world();
  losing.store.get = async () => undefined;
  const stale = { name: 'KmsUnavailableError', code: 'ERR_STORE_STALE' };
  await assert.rejects(losing.keys.getDek(ID, 32), stale);
  const { store, open } = world();
  const dek = await open().getDek(ID, 32);
  const get = store.get.bind(store);
  // Reads lag behind: the key is there, but not to be seen yet.
  let lag = 2;
  store.get = async (name) => (lag-- > 0 ? undefined : get(name));
  assert.deepEqual(await open().getDek(ID, 32), dek);
  // One that says it has created, and keeps another.
  const other = await open().wrapped(ID);
  store.get = async () => undefined;
  store.create = async () => {
    store.get = async () => ({ bytes: other!, version: '1' });
    return 'created';
  };
  await assert.rejects(open().getDek(ID, 32), stale);
});

test('store and KMS down: what is cached is served, the rest is an error that may pass', async () => {
  const { store, kek, keys } = world();
  const dek = await keys.getDek(ID, 32);
  store.before = async () => {
    throw down();
  };
  kek.before = store.before as never;
  assert.deepEqual(await keys.getDek(ID, 32), dek);
  assert.deepEqual(await keys.wrapped(ID), store.objects.get(ID));
  await assert.rejects(keys.getDek('key-other', 32), {
    name: 'KmsUnavailableError',
    code: 'ERR_STORE_UNAVAILABLE',
  });
  await assert.rejects(keys.wrapped('key-other'), { code: 'ERR_STORE_UNAVAILABLE' });
  store.before = async () => {};
  kek.before = async () => {};
  assert.equal((await keys.getDek('key-other', 32)).length, 32, 'it is up again');
});

test('a burst of throttling is waited for; one that does not end is an error in time', async () => {
  const { kek, open } = world();
  let refusals = 4;
  kek.before = async () => {
    if (refusals-- > 0) throw new KmsUnavailableError('ERR_KMS_THROTTLED', 'slow down', { retryAfterMs: 5 });
  };
  assert.equal((await open({ retry: { tries: 5 } }).getDek(ID, 32)).length, 32);
  refusals = Number.POSITIVE_INFINITY;
  const { calls } = kek;
  await assert.rejects(open({ retry: { tries: 3 } }).getDek(ID, 32), { code: 'ERR_KMS_THROTTLED' });
  assert.equal(kek.calls - calls, 3);
  kek.before = async () => {
    throw new KmsUnavailableError('ERR_KMS_THROTTLED', 'slow down', { retryAfterMs: 3_600_000 });
  };
  await assert.rejects(open().getDek(ID, 32), { code: 'ERR_KMS_THROTTLED' });
});

test('what the KMS refuses is not tried again', async () => {
  const { kek, keys } = world();
  await keys.getDek('key-a', 32);
  kek.before = async () => {
    throw new KmsError('ERR_KMS_KEY_DISABLED', 'disabled');
  };
  const { calls } = kek;
  await assert.rejects(keys.getDek(ID, 32), { code: 'ERR_KMS_KEY_DISABLED' });
  assert.equal(kek.calls, calls + 1);
});

test('a KMS that hangs ends at the deadline', async () => {
  const { kek, open } = world();
  kek.before = (_, signal) =>
    new Promise((_, reject) =>
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true }),
    );
  const late = open({ retry: { deadlineMs: 50 } }).getDek(ID, 32);
  await assert.rejects(late, { name: 'KmsUnavailableError', code: 'ERR_KMS_UNAVAILABLE' });
});

test('a create whose answer was lost: the key that is there is the key', async () => {
  const { store, open } = world();
  const create = store.create.bind(store);
  let lost = true;
  store.create = async (name, bytes) => {
    const outcome = await create(name, bytes);
    if (!lost) return outcome;
    lost = false;
    throw down();
  };
  const dek = await open().getDek(ID, 32);
  assert.deepEqual(await open().getDek(ID, 32), dek);
});

test('a caller that aborts goes alone', async () => {
  const { store, keys } = world();
  const gate = Promise.withResolvers<void>();
  store.before = () => gate.promise;
  const abort = new AbortController();
  const gone = keys.getDek(ID, 32, abort.signal);
  const staying = [keys.getDek(ID, 32), keys.getDek(ID, 32, new AbortController().signal)];
  abort.abort(new Error('enough'));
  await assert.rejects(gone, /enough/);
  await assert.rejects(keys.getDek(ID, 32, AbortSignal.abort(new Error('too late'))), /too late/);
  gate.resolve();
  const [one, two] = await Promise.all(staying);
  assert.deepEqual(one, two);
  assert.deepEqual(await keys.getDek(ID, 32), one);
});

test('where all callers are gone, one that comes before the answer does still gets the key', async () => {
  const { store, keys, open } = world();
  const gate = Promise.withResolvers<void>();
  store.before = () => gate.promise;
  const abort = new AbortController();
  const gone = keys.getDek(ID, 32, abort.signal);
  abort.abort();
  await assert.rejects(gone);
  const late = keys.getDek(ID, 32);
  gate.resolve();
  assert.deepEqual(await late, await open().getDek(ID, 32));
});

test('a life in the cache ends, and the key is asked for again', async () => {
  const { kek, open } = world({ cache: { lifeMs: 20 } });
  const keys = open();
  const dek = await keys.getDek(ID, 32);
  const { calls } = kek;
  await sleep(25);
  assert.deepEqual(await keys.getDek(ID, 32), dek);
  assert.equal(kek.calls, calls + 1);
});

test('closed: nothing is given out, who waits is told, and what it was made of is closed', async () => {
  const { store, kek, keys } = world();
  await keys.getDek(ID, 32);
  kek.before = (_, signal) =>
    new Promise((_, reject) =>
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true }),
    );
  const waiting = keys.getDek('key-waits', 32);
  waiting.catch(() => {});
  await sleep(5);
  await keys.close();
  await assert.rejects(waiting, { code: 'ERR_KMS_CLOSED' });
  await assert.rejects(keys.getDek(ID, 32), { code: 'ERR_KMS_CLOSED' });
  await assert.rejects(keys.wrapped(ID), { code: 'ERR_KMS_CLOSED' });
  assert.ok(store.closed && kek.closed);
});

test('a given key is imported once', async () => {
  const { keys, open, store } = world();
  const secret = new Uint8Array(randomBytes(32));
  const before = Uint8Array.from(secret);
  assert.equal(await keys.wrapped('key-measurementSecret'), undefined);
  await keys.importDek('key-measurementSecret', secret);
  await open().importDek('key-measurementSecret', secret);
  assert.deepEqual(secret, before);
  assert.deepEqual(await open().getDek('key-measurementSecret', 32), secret);
  const stored = store.objects.get('key-measurementSecret');
  assert.deepEqual(await keys.wrapped('key-measurementSecret'), stored);
  for (const other of [new Uint8Array(32), new Uint8Array(16)])
    await assert.rejects(keys.importDek('key-measurementSecret', other), { code: 'ERR_DEK_EXISTS' });
  assert.deepEqual(store.objects.get('key-measurementSecret'), stored);
});

test('names that are none of a key are refused', async () => {
  const { keys, store } = world();
  for (const id of ['', '../x', 'key-a/b', 'x'.repeat(129)])
    await assert.rejects(keys.getDek(id, 32), { code: 'ERR_STORE_SETTINGS' });
  assert.equal(store.objects.size, 0);
});

test('exchanges and the cache are observed', async () => {
  const seen: unknown[] = [];
  const observer: KeyObserver = {
    onExchange: (what, outcome, ms, code) => {
      assert.ok(ms >= 0);
      seen.push(code === undefined ? `${what} ${outcome}` : `${what} ${outcome} ${code}`);
    },
    onCache: (hit) => seen.push(hit),
  };
  const { kek, open } = world({ observer });
  const keys = open();
  let refusals = 1;
  kek.before = async () => {
    if (refusals-- > 0) throw down('ERR_KMS_THROTTLED');
  };
  await keys.getDek(ID, 32);
  await keys.getDek(ID, 32);
  assert.deepEqual(seen, [
    false,
    'store ok',
    'kms failed ERR_KMS_THROTTLED',
    'kms ok',
    'store ok',
    'store ok',
    'kms ok',
    true,
  ]);
});
