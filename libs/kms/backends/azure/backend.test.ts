import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { kekContract } from '@asterism/testkit/kms-contract';
import { type AzureHome, azureHome } from './azure-home.fixture.ts';

const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';
const HOME = 'https://asterism-test.vault.azure.net/keys';
const key = () => new Uint8Array(randomBytes(32));

describe('Azure Key Vault', () => {
  let home: AzureHome;
  before(async () => {
    home = await azureHome();
  });
  afterEach(() => home.reset());
  after(() => home?.[Symbol.asyncDispose]());

  describe('an RSA key', () => kekContract(() => home.kek, { bindsContext: false }));

  test('an AES key of a Managed HSM wraps by A256KW, and refuses what is damaged', async () => {
    const { version } = home.vault.addKey('aes', 'oct-HSM');
    const kek = await home.open({ keyName: 'aes' });
    const secret = key();
    const wrapped = await kek.wrap(secret, CONTEXT);
    assert.deepEqual([wrapped.mechanism, wrapped.keyId], [2, `${HOME}/aes/${version}`]);
    assert.equal(wrapped.wrappedKey.length, 40, 'RFC 3394: 8 bytes more');
    assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), secret);
    wrapped.wrappedKey[5]! ^= 1;
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
    assert.match((await kek.status()).detail, /^A256KW, oct-HSM, enabled$/);
  });

  test('a rotated key wraps by its new version and unwraps by the one that the blob names', async () => {
    const first = home.vault.addKey('turning');
    const kek = await home.open({ keyName: 'turning' });
    const secret = key();
    const old = await kek.wrap(secret, CONTEXT);
    const second = home.vault.addKey('turning');
    const next = await kek.wrap(secret, CONTEXT);
    assert.equal(old.keyId, `${HOME}/turning/${first.version}`);
    assert.equal(next.keyId, `${HOME}/turning/${second.version}`);
    assert.deepEqual(await kek.unwrap(old, CONTEXT), secret);
    assert.deepEqual(await kek.unwrap(next, CONTEXT), secret);
    await assert.rejects(kek.unwrap({ ...old, keyId: next.keyId }, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
  });

  test('what Constellation v2.6 wrapped is read: version alone as key id, text or bytes', async () => {
    const wrapped = await home.kek.wrap(key(), CONTEXT);
    const version = wrapped.keyId.split('/').at(-1)!;
    const plain = await home.kek.unwrap(wrapped, CONTEXT);
    const text = new Uint8Array(Buffer.from(Buffer.from(wrapped.wrappedKey).toString('base64url')));
    for (const wrappedKey of [text, wrapped.wrappedKey])
      assert.deepEqual(await home.kek.unwrap({ mechanism: 0, keyId: version, wrappedKey }, undefined), plain);
    for (const wrappedKey of [text, wrapped.wrappedKey])
      await assert.rejects(home.kek.unwrap({ mechanism: 0, keyId: version, wrappedKey }, CONTEXT), {
        code: 'ERR_KMS_UNWRAP',
      });
  });

  test('a blob names no address: another home.vault, key, path or version form is refused, and nobody is called', async () => {
    const wrapped = await home.kek.wrap(key(), CONTEXT);
    const version = wrapped.keyId.split('/').at(-1)!;
    const before = home.vault.requests.length;
    for (const keyId of [
      `https://evil.vault.azure.net/keys/kek/${version}`,
      `${home.vault.origin}/keys/kek/${version}`,
      `https://asterism-test.vault.azure.net@evil.example/keys/kek/${version}`,
      `${HOME}/other/${version}`,
      `${HOME}/kek/../other/${version}`,
      `${HOME}/kek/${version}/`,
      `${HOME}/kek/${version}?x=1`,
      `${HOME}/kek/`,
      `${HOME}/kek`,
      version,
      '',
    ])
      await assert.rejects(
        home.kek.unwrap({ ...wrapped, keyId }, CONTEXT),
        { code: 'ERR_KMS_UNWRAP' },
        keyId,
      );
    await assert.rejects(home.kek.unwrap({ ...wrapped, mechanism: 9 }, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
    await assert.rejects(home.kek.unwrap({ ...wrapped, wrappedKey: new Uint8Array(8193) }, CONTEXT), {
      code: 'ERR_KMS_UNWRAP',
    });
    assert.equal(home.vault.requests.length, before);
  });

  test('a disabled key neither wraps nor unwraps, an expired one unwraps', async () => {
    const version = home.vault.addKey('dated');
    const kek = await home.open({ keyName: 'dated' });
    const secret = key();
    const wrapped = await kek.wrap(secret, CONTEXT);

    version.enabled = false;
    assert.equal((await kek.status()).enabled, false);
    await assert.rejects(kek.wrap(secret, CONTEXT), { code: 'ERR_KMS_KEY_DISABLED' });
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_KEY_DISABLED' });

    version.enabled = true;
    version.expires = Math.floor(Date.now() / 1000) - 60;
    const status = await kek.status();
    assert.equal(status.enabled, false);
    assert.match(status.detail, /expired 20\d\d-/);
    await assert.rejects(kek.wrap(secret, CONTEXT), { code: 'ERR_KMS_KEY_DISABLED', message: /KeyExpired/ });
    assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), secret);

    delete version.expires;
    version.notBefore = Math.floor(Date.now() / 1000) + 3600;
    await assert.rejects(kek.wrap(secret, CONTEXT), {
      code: 'ERR_KMS_KEY_DISABLED',
      message: /KeyNotYetValid/,
    });

    delete version.notBefore;
    version.operations = ['unwrapKey'];
    assert.match((await kek.status()).detail, /without the operation wrapKey/);
    await assert.rejects(kek.wrap(secret, CONTEXT), { code: 'ERR_KMS_DENIED' });
  });

  test('a deleted key, and one that never was', async () => {
    home.vault.addKey('gone');
    const kek = await home.open({ keyName: 'gone' });
    const wrapped = await kek.wrap(key(), CONTEXT);
    home.vault.deleteKey('gone');
    for (const call of [kek.status(), kek.wrap(key(), CONTEXT), kek.unwrap(wrapped, CONTEXT)])
      await assert.rejects(call, { name: 'KmsError', code: 'ERR_KMS_KEY_NOT_FOUND' });
  });

  test('a key that cannot wrap is a matter of settings', async () => {
    home.vault.addKey('curve', 'EC');
    const kek = await home.open({ keyName: 'curve' });
    await assert.rejects(kek.wrap(key(), CONTEXT), { code: 'ERR_KMS_SETTINGS' });
    await assert.rejects(kek.status(), { code: 'ERR_KMS_SETTINGS' });
  });

  test('an identity without a role is denied', async () => {
    const wrapped = await home.kek.wrap(key(), CONTEXT);
    home.vault.allowed = new Set(['get']);
    try {
      await assert.rejects(home.kek.wrap(key(), CONTEXT), {
        code: 'ERR_KMS_DENIED',
        message: /ForbiddenByRbac/,
      });
      await assert.rejects(home.kek.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_DENIED' });
    } finally {
      home.vault.allowed = new Set(['get', 'wrapkey', 'unwrapkey']);
    }
  });

  test('many first calls at once all succeed: none loses its body', async () => {
    const secrets = Array.from({ length: 20 }, key);
    const wrapped = await Promise.all(secrets.map((secret) => home.kek.wrap(secret, CONTEXT)));
    const kek = await home.open();
    assert.deepEqual(await Promise.all(wrapped.map((one) => kek.unwrap(one, CONTEXT))), secrets);
  });

  test('the first request of a client carries neither the key nor a token', async () => {
    const from = home.vault.requests.length;
    const kek = await home.open();
    await kek.wrap(key(), CONTEXT);
    for (const { token, body } of home.vault.requests.slice(from)) if (!token) assert.equal(body, '');
  });
});
