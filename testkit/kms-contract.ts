import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { ENVELOPE_KEY_BYTES, type Kek } from '@asterism/kms/kek';
import type { DekStore } from '@asterism/kms/store';

const bytes = (length: number) => new Uint8Array(randomBytes(length));
const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';

export interface KekTraits {
  /** Whether the home itself refuses another context than the key was wrapped with. */
  readonly bindsContext: boolean;
}

/** What every KEK does, tried on a real counterpart. Call it in a `describe`. */
export function kekContract(kek: () => Kek, traits: KekTraits): void {
  test('contract: what was wrapped is unwrapped, and looks different each time', async () => {
    const key = bytes(ENVELOPE_KEY_BYTES);
    const before = Uint8Array.from(key);
    const one = await kek().wrap(key, CONTEXT);
    const two = await kek().wrap(key, CONTEXT);
    assert.deepEqual(key, before, 'the key that is wrapped is not touched');
    assert.notDeepEqual(one.wrappedKey, two.wrappedKey);
    assert.ok(!Buffer.from(one.wrappedKey).includes(Buffer.from(key)));
    assert.deepEqual(await kek().unwrap(one, CONTEXT), key);
    assert.deepEqual(await kek().unwrap(two, CONTEXT), key);
  });

  test('contract: its status names the key that wrapped bytes name', async () => {
    const status = await kek().status();
    const { keyId } = await kek().wrap(bytes(ENVELOPE_KEY_BYTES), CONTEXT);
    assert.equal(status.enabled, true);
    assert.equal(status.keyId, keyId);
    assert.notEqual(status.detail, '');
  });

  test('contract: damaged, truncated, extended and foreign bytes are refused', async () => {
    const wrapped = await kek().wrap(bytes(ENVELOPE_KEY_BYTES), CONTEXT);
    const flipped = Uint8Array.from(wrapped.wrappedKey);
    flipped[flipped.length - 1]! ^= 1;
    for (const wrappedKey of [
      flipped,
      wrapped.wrappedKey.slice(0, -1),
      wrapped.wrappedKey.slice(0, 1),
      Uint8Array.of(...wrapped.wrappedKey, 0),
      bytes(wrapped.wrappedKey.length),
    ]) {
      await assert.rejects(kek().unwrap({ ...wrapped, wrappedKey }, CONTEXT), {
        name: 'KmsError',
        code: 'ERR_KMS_UNWRAP',
      });
    }
  });

  test('contract: keys of another length are refused before they are sent', async () => {
    for (const length of [0, 16, 31, 33])
      await assert.rejects(kek().wrap(bytes(length), CONTEXT), { code: 'ERR_KMS_SETTINGS' });
  });

  if (traits.bindsContext) {
    test('contract: another context is refused by the home', async () => {
      const wrapped = await kek().wrap(bytes(ENVELOPE_KEY_BYTES), CONTEXT);
      for (const context of [`${CONTEXT}x`, undefined])
        await assert.rejects(kek().unwrap(wrapped, context), { code: 'ERR_KMS_UNWRAP' });
    });
  }

  test('contract: an aborted signal ends a call', async () => {
    await assert.rejects(kek().wrap(bytes(ENVELOPE_KEY_BYTES), CONTEXT, AbortSignal.abort()));
    await assert.rejects(kek().status(AbortSignal.abort()));
  });
}

/** What every store does, tried on a real counterpart. The store must be empty. Call it in a `describe`. */
export function storeContract(store: () => DekStore): void {
  const names = async () => {
    const found: string[] = [];
    for await (const name of store().list()) found.push(name);
    return found.sort();
  };

  test('contract: an object is created once, read, replaced and removed', async () => {
    assert.equal(await store().get('key-one'), undefined);
    const content = bytes(900);
    assert.equal(await store().create('key-one', content), 'created');
    assert.equal(await store().create('key-one', bytes(10)), 'exists');
    const read = await store().get('key-one');
    assert.ok(read);
    assert.deepEqual(read.bytes, content);
    const next = bytes(64 * 1024);
    assert.equal(await store().replace('key-one', next, read.version), 'replaced');
    assert.equal(await store().replace('key-one', bytes(5), read.version), 'changed');
    const again = await store().get('key-one');
    assert.deepEqual(again?.bytes, next);
    assert.notEqual(again.version, read.version);
    assert.equal(await store().remove('key-one', read.version), 'changed');
    assert.equal(await store().remove('key-one', again.version), 'removed');
    assert.equal(await store().get('key-one'), undefined);
    assert.equal(await store().remove('key-one', again.version), 'removed');
    assert.equal(await store().replace('key-one', bytes(5), again.version), 'changed');
    assert.equal(await store().get('key-one'), undefined, 'a replace never creates');
  });

  test('contract: of two hundred that create at once, one does, and its content is what is there', async () => {
    const contents = Array.from({ length: 200 }, () => bytes(100));
    const outcomes = await Promise.all(contents.map((content) => store().create('key-race', content)));
    assert.equal(outcomes.filter((outcome) => outcome === 'created').length, 1);
    const read = await store().get('key-race');
    assert.ok(read);
    assert.deepEqual(read.bytes, contents[outcomes.indexOf('created')]);
    assert.equal(await store().remove('key-race', read.version), 'removed');
  });

  test('contract: of twenty that replace one version at once, one does', async () => {
    await store().create('key-cas', bytes(10));
    const { version } = (await store().get('key-cas'))!;
    const contents = Array.from({ length: 20 }, () => bytes(100));
    const outcomes = await Promise.all(
      contents.map((content) => store().replace('key-cas', content, version)),
    );
    assert.equal(outcomes.filter((outcome) => outcome === 'replaced').length, 1);
    const read = await store().get('key-cas');
    assert.ok(read);
    assert.deepEqual(read.bytes, contents[outcomes.indexOf('replaced')]);
    await store().remove('key-cas', read.version);
  });

  test('contract: every name is listed, beyond one page', async () => {
    assert.deepEqual(await names(), []);
    const made = Array.from({ length: 30 }, (_, i) => `key-List.${String(i).padStart(4, '0')}`);
    await Promise.all(made.map((name) => store().create(name, bytes(10))));
    assert.deepEqual(await names(), made);
    for (const name of made) await store().remove(name, (await store().get(name))!.version);
  });

  test('contract: names and sizes out of bounds are refused before they are sent', async () => {
    for (const name of ['', '.', '..', '../x', 'a/b', 'a b', 'x'.repeat(129), 'a\n'])
      await assert.rejects(store().get(name), { code: 'ERR_STORE_SETTINGS' }, name);
    await assert.rejects(store().create('key-big', bytes(64 * 1024 + 1)), { code: 'ERR_STORE_SETTINGS' });
  });

  test('contract: an aborted signal ends a call', async () => {
    await assert.rejects(store().get('key-one', AbortSignal.abort()));
  });
}
