import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import type { Authority } from '@asterism/testkit/counterparts/key-vault/authority';
import { testCa } from '@asterism/testkit/test-ca';
import { type AzureHome, azureHome } from './azure-home.fixture.ts';
import { open } from './backend.ts';

describe('Azure Key Vault: credentials', () => {
  let home: AzureHome;
  before(async () => {
    home = await azureHome();
  });
  afterEach(() => home.reset());
  after(() => home?.[Symbol.asyncDispose]());

  test('a wrong secret, another client, an expired secret; none of it is in the error', async () => {
    const wrong = 'this-secret-must-not-be-seen';
    const kek = await home.open({ clientSecret: wrong });
    const error = await kek.status().then(
      (): never => assert.fail(),
      (reason: Error) => reason,
    );
    assert.equal((error as { code?: string }).code, 'ERR_KMS_CREDENTIALS');
    assert.match(error.message, /AADSTS7000215/);
    assert.ok(!inspect(error, { depth: 9, showHidden: true }).includes(wrong));

    const other = await home.open({ clientID: '00000000-0000-4000-8000-000000000000' });
    await assert.rejects(other.status(), { code: 'ERR_KMS_CREDENTIALS', message: /AADSTS700016/ });

    home.authority.secretExpired = true;
    const expired = await home.open();
    await assert.rejects(expired.status(), { code: 'ERR_KMS_CREDENTIALS', message: /AADSTS7000222/ });
  });

  test('a token that has run out is replaced', async () => {
    home.authority.tokenSeconds = 1;
    const kek = await home.open();
    await kek.status();
    const tokens = home.authority.scopes.length;
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await kek.status();
    assert.ok(home.authority.scopes.length > tokens);
  });

  test('a token that the vault does not accept is no token', async () => {
    for (const claims of [
      { exp: 1 },
      { aud: 'https://storage.azure.com' },
      { iss: 'https://sts.windows.net/other/' },
    ]) {
      const kek = await home.open();
      home.authority.instead = ({ method }) =>
        method === 'POST'
          ? {
              status: 200,
              body: { token_type: 'Bearer', expires_in: 3600, access_token: home.authority.mint(claims) },
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
      home.authority.instead = instead;
      const kek = await home.open();
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
    const kek = await home.open({ caCertificate: stranger.pem });
    await assert.rejects(kek.status(), { code: 'ERR_KMS_ANSWER' });
  });

  test('a vault that asks for a token of another service gets none', async () => {
    const kek = await home.open();
    const before = home.authority.scopes.length;
    for (const challenge of [
      `Bearer authorization="${home.authority.origin}/${home.authority.tenantId}", resource="https://management.azure.com"`,
      `Bearer authorization="${home.authority.origin}/${home.authority.tenantId}", scope="https://graph.microsoft.com/.default"`,
    ]) {
      home.vault.instead = () => ({ status: 401, headers: { 'www-authenticate': challenge }, body: {} });
      await assert.rejects(kek.status(), { code: 'ERR_KMS_ANSWER', message: /does not get one/ });
    }
    home.vault.instead = () => ({
      status: 401,
      headers: {
        'www-authenticate': `Bearer authorization="${home.authority.origin}/22222222-0000-4000-8000-000000000000", resource="https://vault.azure.net"`,
      },
      body: {},
    });
    await assert.rejects(kek.status(), { code: 'ERR_KMS_CREDENTIALS' });
    assert.equal(home.authority.scopes.length, before);
  });

  test('settings that would send credentials astray are refused', async () => {
    const refused = { code: 'ERR_KMS_SETTINGS' };
    await assert.rejects(open(home.settings({ endpoint: 'http://vault.example' })), refused);
    await assert.rejects(
      open({ ...home.settings(), credentials: { caCertificate: home.ca.pem } }),
      refused,
      'own endpoint, no credentials',
    );
    await assert.rejects(open(home.settings({ endpoint: `${home.vault.origin}/path` })), refused);
    const { parameters, credentials } = home.settings();
    await assert.rejects(open({ parameters: { ...parameters, tenantID: undefined }, credentials }), refused);
  });
});
