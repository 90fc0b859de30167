import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { KMS_HOMES } from '@asterism/kms/catalogue';
import { printed } from '@asterism/kms/google.fixture';
import type { Kek } from '@asterism/kms/kek';
import { type GcpKms, gcpKmsProgram, startGcpKms } from '@asterism/testkit/counterparts/gcp-kms';
import { kekContract } from '@asterism/testkit/kms-contract';
import { testCa } from '@asterism/testkit/test-ca';
import { faultOf } from '../../values.ts';
import { open } from './backend.ts';

const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';
const key = () => new Uint8Array(randomBytes(32));

const found = await gcpKmsProgram();

describe('Google Cloud KMS', { skip: 'skip' in found && found.skip }, () => {
  let kms: GcpKms;
  let serviceAccountKey: string;
  let kek: Kek;
  const settings = (keyName: string, credentials: Record<string, string> = {}) => ({
    parameters: kms.parameters(keyName),
    credentials: { serviceAccountKey, caCertificate: kms.front.ca, ...credentials },
  });

  before(async () => {
    kms = await startGcpKms((found as { program: string }).program);
    serviceAccountKey = kms.front.serviceAccountKey();
    await kms.createKey('kek');
    kek = await open(settings('kek'));
  });
  after(async () => {
    await kek?.close();
    await kms?.[Symbol.asyncDispose]();
  });

  kekContract(() => kek, { bindsContext: true });

  test('the settings are those of the catalogue', () => {
    const { parameters, credentials } = settings('kek');
    assert.equal(faultOf(KMS_HOMES.gcp.parameters, parameters), undefined);
    assert.equal(faultOf(KMS_HOMES.gcp.credentials, credentials), undefined);
  });

  test('a new version wraps from now on; what older ones wrapped is unwrapped', async () => {
    await kms.createKey('rotated');
    const rotated = await open(settings('rotated'));
    const secret = key();
    const old = await rotated.wrap(secret, CONTEXT);
    const name = await kms.rotate('rotated');
    assert.match(name, /cryptoKeyVersions\/2$/);
    assert.equal((await rotated.wrap(secret, CONTEXT)).keyId, name);
    assert.equal((await rotated.status()).keyId, name);
    assert.deepEqual(await rotated.unwrap(old, CONTEXT), secret);

    await kms.setState('rotated', 1, 'DISABLED');
    await assert.rejects(rotated.unwrap(old, CONTEXT), { name: 'KmsError', code: 'ERR_KMS_KEY_DISABLED' });
    await rotated.wrap(secret, CONTEXT);
    await kms.setState('rotated', 1, 'ENABLED');
    assert.deepEqual(await rotated.unwrap(old, CONTEXT), secret);
    await kms.destroy('rotated', 1);
    await assert.rejects(rotated.unwrap(old, CONTEXT), { code: 'ERR_KMS_KEY_DISABLED' });
    await rotated.close();
  });

  test('a disabled key neither wraps nor unwraps, and its status says so', async () => {
    await kms.createKey('disabled');
    const disabled = await open(settings('disabled'));
    const wrapped = await disabled.wrap(key(), CONTEXT);
    await kms.setState('disabled', 1, 'DISABLED');
    await assert.rejects(disabled.wrap(key(), CONTEXT), { code: 'ERR_KMS_KEY_DISABLED' });
    await assert.rejects(disabled.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_KEY_DISABLED' });
    const { enabled, detail } = await disabled.status();
    assert.equal(enabled, false);
    assert.match(detail, /DISABLED/);
    await disabled.close();
  });

  test('a key that is not for encryption is not enabled', async () => {
    await kms.createKey('signs', 'ASYMMETRIC_SIGN');
    const signs = await open(settings('signs'));
    assert.equal((await signs.status()).enabled, false);
    await assert.rejects(signs.wrap(key(), CONTEXT), { code: 'ERR_KMS_KEY_DISABLED' });
    await signs.close();
  });

  test('no such key', async () => {
    const none = await open(settings('none'));
    await assert.rejects(none.wrap(key(), CONTEXT), { code: 'ERR_KMS_KEY_NOT_FOUND' });
    await assert.rejects(none.status(), { code: 'ERR_KMS_KEY_NOT_FOUND' });
    await none.close();
  });

  test('what another key wrapped is refused, by its name and, where the name lies, by the service', async () => {
    await kms.createKey('other');
    const other = await open(settings('other'));
    const wrapped = await other.wrap(key(), CONTEXT);
    const { calls } = kms.front;
    const before = calls.length;
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
    const own = (await kek.status()).keyId;
    for (const keyId of ['', own.replace(/\/cryptoKeyVersions.*/, ''), `${own}/..`, `x${own}`])
      await assert.rejects(kek.unwrap({ ...wrapped, keyId }, CONTEXT), { code: 'ERR_KMS_UNWRAP' }, keyId);
    await assert.rejects(kek.unwrap({ ...wrapped, mechanism: 2, keyId: own }, CONTEXT), {
      code: 'ERR_KMS_UNWRAP',
    });
    assert.deepEqual(
      calls.slice(before).filter((call) => call.startsWith('POST')),
      [],
    );
    await assert.rejects(kek.unwrap({ ...wrapped, keyId: own }, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
    await other.close();
  });

  test('wrapped bytes out of bounds are not sent', async () => {
    const wrapped = await kek.wrap(key(), CONTEXT);
    for (const length of [0, 8193])
      await assert.rejects(kek.unwrap({ ...wrapped, wrappedKey: new Uint8Array(length) }, CONTEXT), {
        code: 'ERR_KMS_UNWRAP',
      });
  });

  test('a burst of throttling is sat out; a longer one is reported with the time to wait', async () => {
    kms.front.refuse(2, 429);
    await kek.wrap(key(), CONTEXT);
    kms.front.refuse(2, 503);
    await kek.status();
    kms.front.refuse(3, 429);
    await assert.rejects(kek.wrap(key(), CONTEXT), {
      name: 'KmsUnavailableError',
      code: 'ERR_KMS_THROTTLED',
    });
    kms.front.refuse(1, 429, { 'retry-after': '3600' });
    await assert.rejects(kek.wrap(key(), CONTEXT), { code: 'ERR_KMS_THROTTLED', retryAfterMs: 3_600_000 });
    kms.front.refuse(1, 503, { 'retry-after': new Date(Date.now() + 600_000).toUTCString() });
    await assert.rejects(kek.wrap(key(), CONTEXT), (error: { code: string; retryAfterMs: number }) => {
      assert.equal(error.code, 'ERR_KMS_UNAVAILABLE');
      return error.retryAfterMs > 500_000 && error.retryAfterMs <= 600_000;
    });
    kms.front.refuse(1, 429, { 'retry-after': '1' });
    const started = performance.now();
    await kek.wrap(key(), CONTEXT);
    assert.ok(performance.now() - started >= 1000, 'it waits for as long as it was told to');
  });

  test('one token serves many calls; a refused one is replaced; a deleted account key is an error', async () => {
    const own = await open({
      parameters: kms.parameters('kek'),
      credentials: { serviceAccountKey: kms.front.serviceAccountKey(), caCertificate: kms.front.ca },
    });
    const before = kms.front.tokensGiven;
    await Promise.all(Array.from({ length: 20 }, () => own.wrap(key(), CONTEXT)));
    assert.equal(kms.front.tokensGiven - before, 1);
    kms.front.expireTokens();
    await own.wrap(key(), CONTEXT);
    assert.equal(kms.front.tokensGiven - before, 2);
    kms.front.expireTokens();
    kms.front.deleteKeys();
    await assert.rejects(own.wrap(key(), CONTEXT), (error) => {
      assert.equal((error as { code: string }).code, 'ERR_KMS_CREDENTIALS');
      assert.match((error as Error).message, /invalid_grant/);
      // The token endpoint of this test repeats the assertion in its answer.
      assert.doesNotMatch(printed(error), /eyJ|PRIVATE KEY|ya29/);
      return true;
    });
    await own.close();
    await kek.close();
    serviceAccountKey = kms.front.serviceAccountKey();
    kek = await open(settings('kek'));
  });

  test('a token is renewed before it ends', async () => {
    kms.front.tokenSeconds = 1;
    const own = await open(settings('kek'));
    try {
      await own.wrap(key(), CONTEXT);
      const before = kms.front.tokensGiven;
      await new Promise((resolve) => setTimeout(resolve, 600));
      await own.wrap(key(), CONTEXT);
      assert.equal(kms.front.tokensGiven, before + 1);
    } finally {
      kms.front.tokenSeconds = 3600;
      await own.close();
    }
  });

  test('tokens that are refused again and again are an error, not a loop', async () => {
    kms.front.tokenSeconds = 0;
    const own = await open(settings('kek'));
    try {
      const before = kms.front.tokensGiven;
      await assert.rejects(own.wrap(key(), CONTEXT), { code: 'ERR_KMS_CREDENTIALS' });
      assert.equal(kms.front.tokensGiven, before + 2);
    } finally {
      kms.front.tokenSeconds = 3600;
      await own.close();
    }
  });

  test('the key of another account, or of none, gets no token', async () => {
    for (const change of [{ client_email: 'nobody@project.iam.gserviceaccount.com' }, {}]) {
      const stranger = JSON.parse(kms.front.serviceAccountKey(change));
      // An account that is known, with a private key that is not its own.
      const known = JSON.parse(serviceAccountKey).client_email;
      if (!('client_email' in change)) stranger.client_email = known;
      const own = await open(settings('kek', { serviceAccountKey: JSON.stringify(stranger) }));
      await assert.rejects(own.status(), { code: 'ERR_KMS_CREDENTIALS' });
      await own.close();
    }
  });

  test('a token without the scope is denied', async () => {
    kms.front.grantScope = 'https://www.googleapis.com/auth/devstorage.read_only';
    const own = await open(settings('kek'));
    try {
      await assert.rejects(own.wrap(key(), CONTEXT), { code: 'ERR_KMS_DENIED' });
    } finally {
      kms.front.grantScope = undefined;
      await own.close();
    }
  });

  test('a server with a certificate of another authority gets neither token request nor key', async () => {
    const stranger = await testCa('another');
    const own = await open(settings('kek', { caCertificate: stranger.pem }));
    const before = kms.front.tokensGiven;
    await assert.rejects(own.wrap(key(), CONTEXT), { name: 'KmsError', code: 'ERR_KMS_ANSWER' });
    assert.equal(kms.front.tokensGiven, before);
    await own.close();
    const trusting = await open({ ...settings('kek'), credentials: { serviceAccountKey } });
    await assert.rejects(trusting.status(), { code: 'ERR_KMS_ANSWER' });
    await trusting.close();
  });

  test('a service that is killed is unavailable, and serves again when it is back', async () => {
    const secret = key();
    const wrapped = await kek.wrap(secret, CONTEXT);
    await kms.kill();
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_UNAVAILABLE' });
    await kms.start();
    assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), secret);
  });

  test('the service account key can be a file, but not for an endpoint of the user', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'asterism-gcp-'));
    try {
      const credentialsPath = join(folder, 'key.json');
      await writeFile(credentialsPath, serviceAccountKey, { mode: 0o600 });
      const parameters: Record<string, string> = { ...kms.parameters('kek'), credentialsPath };
      await assert.rejects(open({ parameters, credentials: {} }), { code: 'ERR_KMS_SETTINGS' });
      const { endpoint: _, ...atGoogle } = parameters;
      await (await open({ parameters: atGoogle, credentials: {} })).close();
      const gone = { ...atGoogle, credentialsPath: join(folder, 'gone.json') };
      await assert.rejects(open({ parameters: gone, credentials: {} }), { code: 'ERR_KMS_CREDENTIALS' });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
