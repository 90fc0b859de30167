import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { type Azurite, azuriteProgram, startAzurite } from '@asterism/testkit/counterparts/azurite';
import { type Authority, startAuthority } from '@asterism/testkit/counterparts/key-vault/authority';
import { storeContract } from '@asterism/testkit/kms-contract';
import { type TestCa, testCa } from '@asterism/testkit/test-ca';
import type { Settings } from '../../settings.ts';
import type { DekStore } from '../../store.ts';
import { open } from './store.ts';

const found = await azuriteProgram();
const content = () => new Uint8Array(randomBytes(100));
const listed = async (store: DekStore) => {
  const names: string[] = [];
  for await (const name of store.list()) names.push(name);
  return names.sort();
};

describe('Azure Blob Storage', { skip: 'skip' in found && found.skip }, () => {
  let ca: TestCa;
  let azurite: Azurite;
  let authority: Authority;
  const opened: DekStore[] = [];

  const byKey = (
    change: Partial<Settings['parameters']> = {},
    accountKey = azurite.accountKey,
  ): Settings => ({
    parameters: { account: azurite.account, container: 'deks', endpoint: azurite.endpoint, ...change },
    credentials: { accountKey, caCertificate: ca.pem },
  });
  const byIdentity = (clientSecret = authority.clientSecret): Settings => ({
    parameters: {
      account: azurite.account,
      container: 'deks',
      endpoint: azurite.endpoint,
      tenantID: authority.tenantId,
      clientID: authority.clientId,
      prefix: 'identity/',
    },
    credentials: { clientSecret, caCertificate: ca.pem },
  });
  const storeOf = async (settings: Settings) => {
    const store = await open(settings);
    opened.push(store);
    return store;
  };
  let shared: DekStore;
  let prefixed: DekStore;

  before(async () => {
    ca = await testCa();
    authority = await startAuthority(ca);
    process.env.AZURE_AUTHORITY_HOST = authority.origin;
    azurite = await startAzurite((found as { program: string }).program, ca);
    await azurite.createContainer('deks');
    await azurite.createContainer('plain');
    shared = await open(byKey({ container: 'plain' }));
    prefixed = await open(byKey({ prefix: 'asterism/mini/' }));
  });
  afterEach(async () => {
    authority.instead = undefined;
    for (const store of opened.splice(0)) await store.close();
  });
  after(async () => {
    delete process.env.AZURE_AUTHORITY_HOST;
    await shared?.close();
    await prefixed?.close();
    await azurite?.[Symbol.asyncDispose]();
    await authority?.kill();
  });

  describe('by account key', () => storeContract(() => shared));
  describe('with a prefix', () => storeContract(() => prefixed));
  describe('by service principal', () => {
    let store: DekStore;
    before(async () => {
      store = await open(byIdentity());
    });
    after(() => store.close());
    storeContract(() => store);
  });

  test('stores with different prefixes do not see each other, and names of others are left out', async () => {
    const [a, b] = [await storeOf(byKey({ prefix: 'a/' })), await storeOf(byKey({ prefix: 'a' }))];
    await a.create('key-one', content());
    assert.deepEqual(await listed(a), ['key-one']);
    assert.deepEqual(await listed(b), [], 'a/key-one of the other is /key-one here: no name');
    assert.equal(await b.get('key-one'), undefined);
    await a.remove('key-one', (await a.get('key-one'))!.version);
  });

  test('a listing goes through many pages', async () => {
    const store = await storeOf(byKey({ prefix: 'many/' }));
    const names = Array.from({ length: 1100 }, (_, i) => `key-${String(i).padStart(5, '0')}`);
    for (let i = 0; i < names.length; i += 50)
      await Promise.all(names.slice(i, i + 50).map((name) => store.create(name, content())));
    assert.deepEqual(await listed(store), names);
  });

  test('a container that is not there is named, and not made', async () => {
    const store = await storeOf(byKey({ container: 'missing' }));
    const refused = { name: 'KmsError', code: 'ERR_STORE_NOT_FOUND' };
    await assert.rejects(store.get('key-one'), refused);
    await assert.rejects(store.create('key-one', content()), refused);
    await assert.rejects(store.replace('key-one', content(), '"0x1"'), refused);
    await assert.rejects(store.remove('key-one', '"0x1"'), refused);
    await assert.rejects(listed(store), refused);
    await assert.rejects(store.get('key-one'), refused);
  });

  test('a wrong account key and a wrong client secret are refused, and seen nowhere', async () => {
    const key = randomBytes(64).toString('base64');
    const secret = 'this-secret-must-not-be-seen';
    for (const settings of [byKey({}, key), byIdentity(secret)]) {
      const store = await storeOf(settings);
      const error = await store.get('key-one').then(
        (): never => assert.fail(),
        (reason: Error & { code?: string }) => reason,
      );
      assert.equal(error.code, 'ERR_STORE_CREDENTIALS');
      const seen = inspect(error, { depth: 9, showHidden: true });
      assert.ok(![key, secret, 'SharedKey'].some((text) => seen.includes(text)));
    }
  });

  test('tokens of another audience or that have run out are refused', async () => {
    for (const claims of [{ aud: 'https://vault.azure.net' }, { aud: 'https://storage.azure.com', exp: 1 }]) {
      authority.instead = ({ method }) =>
        method === 'POST'
          ? {
              status: 200,
              body: { token_type: 'Bearer', expires_in: 3600, access_token: authority.mint(claims) },
            }
          : undefined;
      const store = await storeOf(byIdentity());
      await assert.rejects(store.get('key-one'), { code: 'ERR_STORE_CREDENTIALS' });
    }
  });

  test('a store that is killed is unavailable, and has everything when it is back', async () => {
    const store = await storeOf(byKey({ prefix: 'kill/' }));
    const bytes = content();
    await store.create('key-kept', bytes);
    const { version } = (await store.get('key-kept'))!;
    await azurite.kill();
    const refused = { name: 'KmsUnavailableError', code: 'ERR_STORE_UNAVAILABLE' };
    await assert.rejects(store.get('key-kept'), refused);
    await assert.rejects(store.create('key-new', bytes), refused);
    await assert.rejects(store.replace('key-kept', bytes, version), refused);
    await assert.rejects(listed(store), refused);
    await azurite.start();
    assert.deepEqual((await store.get('key-kept'))?.bytes, bytes);
  });

  test('settings that would send credentials astray are refused', async () => {
    const refused = { code: 'ERR_STORE_SETTINGS' };
    await assert.rejects(open(byKey({ endpoint: 'http://storage.example/account' })), refused);
    const { parameters } = byKey();
    await assert.rejects(open({ parameters, credentials: { caCertificate: ca.pem } }), refused);
    await assert.rejects(open({ parameters, credentials: { clientSecret: 'x' } }), refused);
    await assert.rejects(open(byKey({ container: undefined })), refused);
  });
});
