import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { type KeyVault, startKeyVault } from '@asterism/testkit/counterparts/key-vault';
import { type Authority, startAuthority } from '@asterism/testkit/counterparts/key-vault/authority';
import { kekContract } from '@asterism/testkit/kms-contract';
import { type TestCa, testCa } from '@asterism/testkit/test-ca';
import type { Kek } from '../../kek.ts';
import type { Settings } from '../../settings.ts';
import { open } from './backend.ts';

const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';
const HOME = 'https://asterism-test.vault.azure.net/keys';
const key = () => new Uint8Array(randomBytes(32));

describe('Azure Key Vault', () => {
  let ca: TestCa;
  let authority: Authority;
  let vault: KeyVault;
  const opened: Kek[] = [];

  const settings = (change: Record<string, string | undefined> = {}): Settings => ({
    parameters: {
      vaultName: 'asterism-test',
      vaultType: 'vault.azure.net',
      keyName: change.keyName ?? 'kek',
      tenantID: change.tenantID ?? authority.tenantId,
      clientID: change.clientID ?? authority.clientId,
      endpoint: change.endpoint ?? vault.origin,
    },
    credentials: {
      clientSecret: 'clientSecret' in change ? change.clientSecret : authority.clientSecret,
      caCertificate: change.caCertificate ?? ca.pem,
    },
  });
  const kekOf = async (change: Record<string, string | undefined> = {}) => {
    const kek = await open(settings(change));
    opened.push(kek);
    return kek;
  };

  before(async () => {
    ca = await testCa();
    authority = await startAuthority(ca);
    vault = await startKeyVault(ca, authority);
    // The SDK reads it whenever a credential is made; its certificate is judged by caCertificate.
    process.env.AZURE_AUTHORITY_HOST = authority.origin;
    vault.addKey('kek');
    shared = await open(settings());
  });
  let shared: Kek;
  afterEach(async () => {
    vault.instead = undefined;
    authority.instead = undefined;
    authority.tokenSeconds = 3600;
    authority.secretExpired = false;
    for (const kek of opened.splice(0)) await kek.close();
  });
  after(async () => {
    delete process.env.AZURE_AUTHORITY_HOST;
    await shared?.close();
    await vault?.kill();
    await authority?.kill();
  });

  describe('an RSA key', () => kekContract(() => shared, { bindsContext: false }));

  test('an AES key of a Managed HSM wraps by A256KW, and refuses what is damaged', async () => {
    const { version } = vault.addKey('aes', 'oct-HSM');
    const kek = await kekOf({ keyName: 'aes' });
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
    const first = vault.addKey('turning');
    const kek = await kekOf({ keyName: 'turning' });
    const secret = key();
    const old = await kek.wrap(secret, CONTEXT);
    const second = vault.addKey('turning');
    const next = await kek.wrap(secret, CONTEXT);
    assert.equal(old.keyId, `${HOME}/turning/${first.version}`);
    assert.equal(next.keyId, `${HOME}/turning/${second.version}`);
    assert.deepEqual(await kek.unwrap(old, CONTEXT), secret);
    assert.deepEqual(await kek.unwrap(next, CONTEXT), secret);
    await assert.rejects(kek.unwrap({ ...old, keyId: next.keyId }, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
  });

  test('what Constellation v2.6 wrapped is read: version alone as key id, text or bytes', async () => {
    const wrapped = await shared.wrap(key(), CONTEXT);
    const version = wrapped.keyId.split('/').at(-1)!;
    const plain = await shared.unwrap(wrapped, CONTEXT);
    const text = new Uint8Array(Buffer.from(Buffer.from(wrapped.wrappedKey).toString('base64url')));
    for (const wrappedKey of [text, wrapped.wrappedKey])
      assert.deepEqual(await shared.unwrap({ mechanism: 0, keyId: version, wrappedKey }, undefined), plain);
    for (const wrappedKey of [text, wrapped.wrappedKey])
      await assert.rejects(shared.unwrap({ mechanism: 0, keyId: version, wrappedKey }, CONTEXT), {
        code: 'ERR_KMS_UNWRAP',
      });
  });

  test('a blob names no address: another vault, key, path or version form is refused, and nobody is called', async () => {
    const wrapped = await shared.wrap(key(), CONTEXT);
    const version = wrapped.keyId.split('/').at(-1)!;
    const before = vault.requests.length;
    for (const keyId of [
      `https://evil.vault.azure.net/keys/kek/${version}`,
      `${vault.origin}/keys/kek/${version}`,
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
      await assert.rejects(shared.unwrap({ ...wrapped, keyId }, CONTEXT), { code: 'ERR_KMS_UNWRAP' }, keyId);
    await assert.rejects(shared.unwrap({ ...wrapped, mechanism: 9 }, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
    await assert.rejects(shared.unwrap({ ...wrapped, wrappedKey: new Uint8Array(8193) }, CONTEXT), {
      code: 'ERR_KMS_UNWRAP',
    });
    assert.equal(vault.requests.length, before);
  });

  test('a disabled key neither wraps nor unwraps, an expired one unwraps', async () => {
    const version = vault.addKey('dated');
    const kek = await kekOf({ keyName: 'dated' });
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
    vault.addKey('gone');
    const kek = await kekOf({ keyName: 'gone' });
    const wrapped = await kek.wrap(key(), CONTEXT);
    vault.deleteKey('gone');
    for (const call of [kek.status(), kek.wrap(key(), CONTEXT), kek.unwrap(wrapped, CONTEXT)])
      await assert.rejects(call, { name: 'KmsError', code: 'ERR_KMS_KEY_NOT_FOUND' });
  });

  test('a key that cannot wrap is a matter of settings', async () => {
    vault.addKey('curve', 'EC');
    const kek = await kekOf({ keyName: 'curve' });
    await assert.rejects(kek.wrap(key(), CONTEXT), { code: 'ERR_KMS_SETTINGS' });
    await assert.rejects(kek.status(), { code: 'ERR_KMS_SETTINGS' });
  });

  test('an identity without a role is denied', async () => {
    const wrapped = await shared.wrap(key(), CONTEXT);
    vault.allowed = new Set(['get']);
    try {
      await assert.rejects(shared.wrap(key(), CONTEXT), {
        code: 'ERR_KMS_DENIED',
        message: /ForbiddenByRbac/,
      });
      await assert.rejects(shared.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_DENIED' });
    } finally {
      vault.allowed = new Set(['get', 'wrapkey', 'unwrapkey']);
    }
  });

  describe('credentials', () => {
    test('a wrong secret, another client, an expired secret; none of it is in the error', async () => {
      const wrong = 'this-secret-must-not-be-seen';
      const kek = await kekOf({ clientSecret: wrong });
      const error = await kek.status().then(
        (): never => assert.fail(),
        (reason: Error) => reason,
      );
      assert.equal((error as { code?: string }).code, 'ERR_KMS_CREDENTIALS');
      assert.match(error.message, /AADSTS7000215/);
      assert.ok(!inspect(error, { depth: 9, showHidden: true }).includes(wrong));

      const other = await kekOf({ clientID: '00000000-0000-4000-8000-000000000000' });
      await assert.rejects(other.status(), { code: 'ERR_KMS_CREDENTIALS', message: /AADSTS700016/ });

      authority.secretExpired = true;
      const expired = await kekOf();
      await assert.rejects(expired.status(), { code: 'ERR_KMS_CREDENTIALS', message: /AADSTS7000222/ });
    });

    test('a token that has run out is replaced', async () => {
      authority.tokenSeconds = 1;
      const kek = await kekOf();
      await kek.status();
      const tokens = authority.scopes.length;
      await new Promise((resolve) => setTimeout(resolve, 1500));
      await kek.status();
      assert.ok(authority.scopes.length > tokens);
    });

    test('a token that the vault does not accept is no token', async () => {
      for (const claims of [
        { exp: 1 },
        { aud: 'https://storage.azure.com' },
        { iss: 'https://sts.windows.net/other/' },
      ]) {
        const kek = await kekOf();
        authority.instead = ({ method }) =>
          method === 'POST'
            ? {
                status: 200,
                body: { token_type: 'Bearer', expires_in: 3600, access_token: authority.mint(claims) },
              }
            : undefined;
        const error = await kek.status().then(
          (): never => assert.fail(),
          (reason: Error) => reason,
        );
        assert.equal((error as { code?: string }).code, 'ERR_KMS_CREDENTIALS');
        assert.ok(!inspect(error, { depth: 9, showHidden: true }).includes('eyJ'));
      }
    });

    test('an authority that fails, asks for patience, hangs up or talks nonsense', async () => {
      const told = async (instead: Authority['instead']) => {
        authority.instead = instead;
        const kek = await kekOf();
        return kek.status().then(
          (): never => assert.fail(),
          (reason: { code?: string }) => reason.code,
        );
      };
      assert.equal(await told(() => ({ status: 503 })), 'ERR_KMS_UNAVAILABLE');
      assert.equal(await told(() => ({ status: 429 })), 'ERR_KMS_THROTTLED');
      assert.equal(await told(() => (response) => response.destroy()), 'ERR_KMS_UNAVAILABLE');
      assert.equal(await told(() => ({ status: 200, body: '<html>' })), 'ERR_KMS_ANSWER');
      assert.equal(await told(() => ({ status: 200, body: 'x'.repeat(2 << 20) })), 'ERR_KMS_ANSWER');
    });

    test('an authority with a certificate of somebody else gets no secret', async () => {
      const stranger = await testCa('somebody else');
      const kek = await kekOf({ caCertificate: stranger.pem });
      await assert.rejects(kek.status(), { code: 'ERR_KMS_ANSWER' });
    });

    test('a vault that asks for a token of another service gets none', async () => {
      const kek = await kekOf();
      const before = authority.scopes.length;
      for (const challenge of [
        `Bearer authorization="${authority.origin}/${authority.tenantId}", resource="https://management.azure.com"`,
        `Bearer authorization="${authority.origin}/${authority.tenantId}", scope="https://graph.microsoft.com/.default"`,
      ]) {
        vault.instead = () => ({ status: 401, headers: { 'www-authenticate': challenge }, body: {} });
        await assert.rejects(kek.status(), { code: 'ERR_KMS_ANSWER', message: /does not get one/ });
      }
      vault.instead = () => ({
        status: 401,
        headers: {
          'www-authenticate': `Bearer authorization="${authority.origin}/22222222-0000-4000-8000-000000000000", resource="https://vault.azure.net"`,
        },
        body: {},
      });
      await assert.rejects(kek.status(), { code: 'ERR_KMS_CREDENTIALS' });
      assert.equal(authority.scopes.length, before);
    });

    test('settings that would send credentials astray are refused', async () => {
      const refused = { code: 'ERR_KMS_SETTINGS' };
      await assert.rejects(open(settings({ endpoint: 'http://vault.example' })), refused);
      await assert.rejects(
        open(settings({ clientSecret: undefined })),
        refused,
        'own endpoint, no credentials',
      );
      await assert.rejects(open(settings({ endpoint: `${vault.origin}/path` })), refused);
      const { parameters, credentials } = settings();
      await assert.rejects(
        open({ parameters: { ...parameters, tenantID: undefined }, credentials }),
        refused,
      );
    });
  });

  describe('a vault that misbehaves', () => {
    const failure = async (instead: KeyVault['instead'], work: (kek: Kek) => Promise<unknown>) => {
      vault.instead = undefined;
      const kek = await kekOf();
      await kek.wrap(key(), CONTEXT);
      vault.instead = instead;
      return work(kek).then(
        (): never => assert.fail(),
        (reason: Error & { code?: string; retryAfterMs?: number }) => reason,
      );
    };

    test('throttling is an error that can be tried again, with the time that it names', async () => {
      for (const status of [429, 503]) {
        const error = await failure(
          () => ({ status, headers: { 'retry-after': '7' }, body: { error: { code: 'Throttled' } } }),
          (kek) => kek.wrap(key(), CONTEXT),
        );
        assert.deepEqual(
          [error.name, error.code, error.retryAfterMs],
          ['KmsUnavailableError', 'ERR_KMS_THROTTLED', 7000],
        );
      }
      const error = await failure(
        () => ({ status: 500 }),
        (kek) => kek.status(),
      );
      assert.equal(error.code, 'ERR_KMS_UNAVAILABLE');
    });

    test('answers that are huge, malformed, redirections, or of another key', async () => {
      const version = 'a'.repeat(32);
      const answers: Record<string, NonNullable<KeyVault['instead']>> = {
        huge: () => ({ status: 200, body: 'x'.repeat(2 << 20) }),
        'endless header': () => (response) =>
          response.writeHead(200, { 'x-much': 'y'.repeat(64 << 10) }).end('{}'),
        'no JSON': () => ({ status: 200, body: '<html>' }),
        empty: () => ({ status: 200, body: {} }),
        'null key': () => ({ status: 200, body: { key: null } }),
        redirection: () => ({ status: 307, headers: { location: `${authority.origin}/` } }),
        packed: () => ({ status: 200, headers: { 'content-encoding': 'gzip' }, body: 'xx' }),
        'another key': () => ({
          status: 200,
          body: {
            key: { kid: `${vault.origin}/keys/other/${version}`, kty: 'RSA' },
            attributes: { enabled: true },
          },
        }),
        'version that is a path': () => ({
          status: 200,
          body: { key: { kid: `${vault.origin}/keys/kek/..`, kty: 'RSA' }, attributes: { enabled: true } },
        }),
        'unheard-of status': () => ({ status: 418, body: {} }),
      };
      for (const [name, instead] of Object.entries(answers)) {
        const error = await failure(instead, (kek) => kek.status());
        assert.equal(error.code, 'ERR_KMS_ANSWER', name);
      }
    });

    test('wrapped and unwrapped values that cannot be', async () => {
      const wrapped = await shared.wrap(key(), CONTEXT);
      const value = (text: unknown) => (asked: { method: string }) =>
        asked.method === 'POST' ? { status: 200, body: { kid: 'x', value: text } } : undefined;
      for (const text of [undefined, '', 'AAAA', 'A'.repeat(20_000)]) {
        const error = await failure(value(text), (kek) => kek.wrap(key(), CONTEXT));
        assert.equal(error.code, 'ERR_KMS_ANSWER');
      }
      for (const text of [undefined, '', 'AAAA', 'A'.repeat(100)]) {
        const error = await failure(value(text), (kek) => kek.unwrap(wrapped, CONTEXT));
        assert.equal(error.code, 'ERR_KMS_ANSWER');
      }
    });

    test('a vault that hangs is left in time, or at once when the caller gives up', async () => {
      const started = performance.now();
      const error = await failure(
        () => 'hang',
        (kek) => kek.status(AbortSignal.timeout(200)),
      );
      assert.equal(error.name, 'TimeoutError');
      assert.ok(performance.now() - started < 8000);
      const slow = await failure(
        () => 'hang',
        (kek) => kek.status(),
      );
      assert.equal(slow.code, 'ERR_KMS_UNAVAILABLE');
      const stuck = await failure(
        () => (response) => void response.writeHead(200).write('{'),
        (kek) => kek.status(),
      );
      assert.equal(stuck.code, 'ERR_KMS_UNAVAILABLE');
    });

    test('a vault with a certificate of somebody else, or for somebody else, is not spoken to', async () => {
      const stranger = await testCa('somebody else');
      const impostor = await startKeyVault(stranger, authority);
      const misnamed = await startKeyVault(ca, authority, { certificateOf: '127.0.0.9' });
      try {
        for (const { origin, requests } of [impostor, misnamed]) {
          const kek = await kekOf({ endpoint: origin });
          await assert.rejects(kek.wrap(key(), CONTEXT), { code: 'ERR_KMS_ANSWER' });
          assert.deepEqual(requests, []);
        }
      } finally {
        await impostor.kill();
        await misnamed.kill();
      }
    });

    test('a vault that is killed between two calls', async () => {
      const other = await startKeyVault(ca, authority);
      other.addKey('kek');
      const kek = await kekOf({ endpoint: other.origin });
      const wrapped = await kek.wrap(key(), CONTEXT);
      await other.kill();
      for (const call of [kek.status(), kek.wrap(key(), CONTEXT), kek.unwrap(wrapped, CONTEXT)])
        await assert.rejects(call, { name: 'KmsUnavailableError', code: 'ERR_KMS_UNAVAILABLE' });
    });
  });

  test('many first calls at once all succeed: none loses its body', async () => {
    const secrets = Array.from({ length: 20 }, key);
    const wrapped = await Promise.all(secrets.map((secret) => shared.wrap(secret, CONTEXT)));
    const kek = await kekOf();
    assert.deepEqual(await Promise.all(wrapped.map((one) => kek.unwrap(one, CONTEXT))), secrets);
  });

  test('the first request of a client carries neither the key nor a token', async () => {
    const from = vault.requests.length;
    const kek = await kekOf();
    await kek.wrap(key(), CONTEXT);
    for (const { token, body } of vault.requests.slice(from)) if (!token) assert.equal(body, '');
  });

  test('without credentials of its own the real vault is asked by what the machine has, and here that is nothing', async () => {
    const { parameters } = settings();
    const kek = await open({
      parameters: { ...parameters, tenantID: undefined, clientID: undefined, endpoint: undefined },
      credentials: {},
    });
    await kek.close();
  });
});
