import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import type { Kek } from '@asterism/kms/kek';
import { startHsm, type TestHsm } from '@asterism/testkit/counterparts/hsm';
import { kekContract } from '@asterism/testkit/kms-contract';
import { testCa } from '@asterism/testkit/test-ca';
import { open } from './backend.ts';

const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';

describe('pkcs11 backend against SoftHSM2 behind p11-kit', () => {
  let hsm: TestHsm;
  const opened: Kek[] = [];

  async function kekOf(
    keyName: string,
    { parameters = {}, credentials = {} }: { parameters?: object; credentials?: object } = {},
  ): Promise<Kek> {
    const kek = await open({
      parameters: {
        host: '127.0.0.1',
        port: String(hsm.port),
        tokenLabel: hsm.tokenLabel,
        keyName,
        ...parameters,
      },
      credentials: {
        clientCertificate: hsm.client.certificate,
        clientKey: hsm.client.key,
        caCertificate: hsm.ca.pem,
        pin: hsm.pin,
        ...credentials,
      },
    });
    opened.push(kek);
    return kek;
  }

  before(async () => {
    hsm = await startHsm();
    await hsm.makeKey('kek', '0a0b');
  });
  after(async () => {
    for (const kek of opened) await kek.close();
    await hsm?.[Symbol.asyncDispose]();
  });

  describe('contract', () => {
    let kek: Kek;
    before(async () => {
      kek = await kekOf('kek');
    });
    kekContract(() => kek, { bindsContext: true });
  });

  test('its key id names token, label and CKA_ID; no session object is left behind', async () => {
    const kek = await kekOf('kek');
    const key = randomBytes(32);
    const wrapped = await kek.wrap(key, CONTEXT);
    assert.match(wrapped.keyId, /^[0-9a-f]{16}\/kek\/0a0b$/);
    assert.equal(wrapped.wrappedKey.length, 72);
    for (let i = 0; i < 3; i++) assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, CONTEXT)), key);
    await assert.rejects(kek.unwrap({ ...wrapped, mechanism: 2 }, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
    const listed = await hsm.tool('--list-objects');
    assert.equal(listed.match(/Secret Key Object/g)?.length, 1);
  });

  test('one connection serves many that ask at once; who gives up does not disturb the others', async () => {
    const kek = await kekOf('kek');
    const before = hsm.connections;
    const controller = new AbortController();
    const calls = Array.from({ length: 40 }, () => kek.wrap(randomBytes(32), CONTEXT));
    const waiting = kek.wrap(randomBytes(32), CONTEXT, controller.signal);
    const later = kek.wrap(randomBytes(32), CONTEXT);
    controller.abort(new Error('enough'));
    await assert.rejects(waiting, /enough/);
    assert.equal(new Set((await Promise.all([...calls, later])).map(({ keyId }) => keyId)).size, 1);
    assert.equal(hsm.connections, before + 1);
  });

  test('a key of another label does not unwrap', async () => {
    await hsm.makeKey('other', '02');
    const wrapped = await (await kekOf('kek')).wrap(randomBytes(32), CONTEXT);
    await assert.rejects((await kekOf('other')).unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
  });

  test('keys that are not there, not one, of another kind or can leave are refused with the reason', async () => {
    await hsm.makeKey('twin', '03');
    await hsm.makeKey('twin', '04');
    const keygen = (label: string, type: string, ...more: string[]) =>
      hsm.tool('--keygen', `--key-type=${type}`, `--label=${label}`, '--private', ...more);
    await keygen('short', 'AES:16', '--sensitive', '--usage-wrap');
    await keygen('generic', 'GENERIC:32', '--sensitive');
    await keygen('extractable', 'AES:32', '--sensitive', '--extractable', '--usage-wrap');
    await keygen('readable', 'AES:32', '--usage-wrap');
    for (const [label, code, message] of [
      ['nobody', 'ERR_KMS_KEY_NOT_FOUND', /label nobody/],
      ['twin', 'ERR_KMS_SETTINGS', /several/],
      ['short', 'ERR_KMS_SETTINGS', /256 bits/],
      ['generic', 'ERR_KMS_SETTINGS', /256 bits/],
      ['extractable', 'ERR_KMS_SETTINGS', /CKA_EXTRACTABLE/],
      ['readable', 'ERR_KMS_SETTINGS', /CKA_SENSITIVE/],
    ] as const) {
      const kek = await kekOf(label);
      await assert.rejects(kek.status(), { name: 'KmsError', code, message }, label);
      await assert.rejects(kek.wrap(randomBytes(32), CONTEXT), { code }, label);
    }
  });

  test('a key that is deleted, or made again, while it is in use', async () => {
    await hsm.makeKey('fleeting', '05');
    const kek = await kekOf('fleeting');
    const wrapped = await kek.wrap(randomBytes(32), CONTEXT);
    await hsm.tool('--delete-object', '--type=secrkey', '--label=fleeting');
    await assert.rejects(kek.status(), { code: 'ERR_KMS_KEY_NOT_FOUND' });
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_KEY_NOT_FOUND' });
    await hsm.makeKey('fleeting', '06');
    assert.match((await kek.status()).keyId, /\/06$/);
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
  });

  test('a wrong PIN is tried once, whatever is asked afterwards, and is not in the error', async () => {
    const pin = 'wrong-pin-98765';
    const kek = await kekOf('kek', { credentials: { pin } });
    const before = hsm.connections;
    const calls = [kek.status(), kek.wrap(randomBytes(32), CONTEXT), kek.status()];
    await Promise.all(
      calls.map((call) =>
        assert.rejects(call, (error: Error) => {
          assert.equal((error as { code?: string }).code, 'ERR_KMS_CREDENTIALS');
          assert.match(error.message, /CKR_PIN_INCORRECT/);
          assert.ok(!`${JSON.stringify(error)}${error.stack}${(error.cause as Error).stack}`.includes(pin));
          return true;
        }),
      ),
    );
    await assert.rejects(kek.status(), { code: 'ERR_KMS_CREDENTIALS' });
    assert.equal(hsm.connections, before + 1);
    await (await kekOf('kek')).status();
  });

  test('the line end of a PIN file is not part of the PIN', async () => {
    const kek = await kekOf('kek', { credentials: { pin: `${hsm.pin}\n` } });
    assert.equal((await kek.status()).enabled, true);
  });

  test('a token that is removed, and one that is there twice', async () => {
    await hsm.initToken('removable');
    const kek = await kekOf('kek', { parameters: { tokenLabel: 'removable' } });
    await assert.rejects(kek.status(), { code: 'ERR_KMS_KEY_NOT_FOUND', message: /secret key/ });
    await hsm.deleteToken('removable');
    await assert.rejects(kek.status(), { code: 'ERR_KMS_KEY_NOT_FOUND', message: /no token/ });
    await hsm.initToken('twins');
    await hsm.initToken('twins');
    const twins = await kekOf('kek', { parameters: { tokenLabel: 'twins' } });
    await assert.rejects(twins.status(), { code: 'ERR_KMS_SETTINGS', message: /2 tokens/ });
  });

  test('the server is killed and started again', async () => {
    const kek = await kekOf('kek');
    const key = randomBytes(32);
    const wrapped = await kek.wrap(key, CONTEXT);
    await hsm.stop();
    const unavailable = { name: 'KmsUnavailableError', code: 'ERR_KMS_UNAVAILABLE' };
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), unavailable);
    await assert.rejects(kek.wrap(key, CONTEXT), unavailable);
    await hsm.start();
    assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, CONTEXT)), key);
    hsm.breakConnections();
    assert.deepEqual(
      Buffer.from(await kek.unwrap(wrapped, CONTEXT)),
      key,
      'a connection that broke is made anew',
    );
  });

  test('certificates: foreign, expired or missing ones, and another name', async () => {
    const foreign = await testCa('another CA');
    const issued = await foreign.issue({ name: 'asterism', usage: 'client' });
    const expired = await hsm.ca.issue({ name: 'asterism', usage: 'client', expired: true });
    const before = hsm.connections;
    await assert.rejects((await kekOf('kek', { credentials: { caCertificate: foreign.pem } })).status(), {
      code: 'ERR_KMS_ANSWER',
      message: /certificate/,
    });
    for (const { certificate, key } of [issued, expired]) {
      const kek = await kekOf('kek', { credentials: { clientCertificate: certificate, clientKey: key } });
      // This server of node:tls closes without saying why; what one says that does is in serve.test.ts.
      await assert.rejects(kek.status(), { code: 'ERR_KMS_UNAVAILABLE' });
    }
    assert.equal(hsm.connections, before, 'none of them came to p11-kit');
    await assert.rejects((await kekOf('kek', { parameters: { serverName: 'hsm.internal' } })).status(), {
      code: 'ERR_KMS_ANSWER',
      message: /certificate/,
    });
    const named = await kekOf('kek', { parameters: { serverName: 'localhost' } });
    assert.equal((await named.status()).enabled, true);
  });

  test('settings that cannot be meant are refused', async () => {
    const foreign = await hsm.ca.issue({ name: 'another', usage: 'client' });
    for (const change of [
      { parameters: { host: undefined } },
      { parameters: { port: '0' } },
      { parameters: { port: '65536' } },
      { credentials: { pin: undefined } },
      { credentials: { clientKey: undefined } },
      { credentials: { clientKey: foreign.key } },
    ])
      await assert.rejects(kekOf('kek', change), (error: Error) => {
        assert.ok(
          !`${JSON.stringify(error)}${(error.cause as Error | undefined)?.stack}`.includes('PRIVATE KEY'),
        );
        return (error as { code?: string }).code === 'ERR_KMS_SETTINGS';
      });
  });
});
