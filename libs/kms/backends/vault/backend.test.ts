import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import type { Kek } from '@asterism/kms/kek';
import { type OpenBao, openBaoProgram, startOpenBao } from '@asterism/testkit/counterparts/openbao';
import { kekContract } from '@asterism/testkit/kms-contract';
import { testCa } from '@asterism/testkit/test-ca';
import { open } from './backend.ts';

const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';
const found = await openBaoProgram();

describe('vault backend against OpenBao', { skip: 'skip' in found && found.skip }, () => {
  let bao: OpenBao;
  const opened: Kek[] = [];

  /** The policy of the documentation, for one key. */
  const policyFor = (key: string) => `
    path "transit/keys/${key}" { capabilities = ["read"] }
    path "transit/encrypt/${key}" { capabilities = ["update"] }
    path "transit/decrypt/${key}" { capabilities = ["update"] }`;

  async function kekOf(
    keyName: string,
    credentials: Record<string, string>,
    parameters: Record<string, string> = {},
  ): Promise<Kek> {
    const kek = await open({
      parameters: { address: bao.address, keyName, ...parameters },
      credentials: { caCertificate: bao.ca, ...credentials },
    });
    opened.push(kek);
    return kek;
  }
  const makeKey = (name: string, options: object = { type: 'aes256-gcm96' }) =>
    bao.admin('POST', `transit/keys/${name}`, options);
  const ownKek = async (name: string, options?: object) => {
    await makeKey(name, options);
    return kekOf(name, { token: await bao.tokenFor(policyFor(name)) });
  };

  before(async () => {
    if ('program' in found) bao = await startOpenBao(found.program);
  });
  after(async () => {
    for (const kek of opened) await kek.close();
    await bao?.[Symbol.asyncDispose]();
  });

  for (const type of ['aes256-gcm96', 'chacha20-poly1305', 'xchacha20-poly1305'])
    describe(type, () => {
      let kek: Kek;
      before(async () => {
        kek = await ownKek(`contract-${type}`, { type });
      });
      kekContract(() => kek, { bindsContext: true });
    });

  test('keys of every version are unwrapped, and new ones get the newest', async () => {
    const kek = await ownKek('versions');
    const key = randomBytes(32);
    const first = await kek.wrap(key, CONTEXT);
    assert.equal(first.keyId, 'transit/versions:v1');
    await bao.admin('POST', 'transit/keys/versions/rotate');
    const second = await kek.wrap(key, CONTEXT);
    assert.equal(second.keyId, 'transit/versions:v2');
    assert.equal((await kek.status()).keyId, 'transit/versions:v2');
    for (const wrapped of [first, second])
      assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, CONTEXT)), key);

    await bao.admin('POST', 'transit/keys/versions/config', { min_decryption_version: 2 });
    await assert.rejects(kek.unwrap(first, CONTEXT), { code: 'ERR_KMS_KEY_DISABLED' });
    assert.deepEqual(Buffer.from(await kek.unwrap(second, CONTEXT)), key);
    const third = fromUtf8(second.wrappedKey).replace(':v2:', ':v3:');
    await assert.rejects(kek.unwrap({ ...second, wrappedKey: toUtf8(third) }, CONTEXT), {
      code: 'ERR_KMS_UNWRAP',
    });
  });

  test('a key that is deleted for the time being is disabled, and works when it is restored', async () => {
    const kek = await ownKek('deleted');
    const wrapped = await kek.wrap(randomBytes(32), CONTEXT);
    await bao.admin('POST', 'transit/keys/deleted/config', { deletion_allowed: true });
    await bao.admin('DELETE', 'transit/keys/deleted/soft-delete');
    assert.equal((await kek.status()).enabled, false);
    await assert.rejects(kek.wrap(randomBytes(32), CONTEXT), { code: 'ERR_KMS_KEY_DISABLED' });
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_KEY_DISABLED' });
    await bao.admin('POST', 'transit/keys/deleted/soft-delete-restore');
    assert.equal((await kek.status()).enabled, true);
    await kek.unwrap(wrapped, CONTEXT);
    await bao.admin('DELETE', 'transit/keys/deleted');
    await assert.rejects(kek.status(), { code: 'ERR_KMS_KEY_NOT_FOUND' });
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_KEY_NOT_FOUND' });
  });

  test('a key that is not there is not made by a wrap, whatever the token may', async () => {
    const kek = await kekOf('mistyped', { token: bao.rootToken });
    await assert.rejects(kek.wrap(randomBytes(32), CONTEXT), { code: 'ERR_KMS_KEY_NOT_FOUND' });
    assert.deepEqual((await bao.admin('GET', 'transit/keys/mistyped')).errors, []);
    const elsewhere = await kekOf('mistyped', { token: bao.rootToken }, { mount: 'no/such/mount' });
    await assert.rejects(elsewhere.status(), { code: 'ERR_KMS_KEY_NOT_FOUND', message: /no\/such\/mount/ });
  });

  test('keys that bind no context, need another one or can leave are refused', async () => {
    for (const [name, options, message] of [
      ['rsa', { type: 'rsa-2048' }, /of type rsa-2048/],
      ['small', { type: 'aes128-gcm96' }, /of type aes128-gcm96/],
      ['derived', { derived: true }, /key derivation/],
      ['exportable', { exportable: true }, /exported/],
      ['backup', { allow_plaintext_backup: true }, /exported/],
    ] as const) {
      const kek = await ownKek(name, options);
      await assert.rejects(kek.status(), { code: 'ERR_KMS_SETTINGS', message }, name);
      await assert.rejects(kek.wrap(randomBytes(32), CONTEXT), { code: 'ERR_KMS_SETTINGS' }, name);
    }
  });

  test('a wrong token, one that ran out and one that may not are told apart', async () => {
    await makeKey('guarded');
    const wrong = await kekOf('guarded', { token: 's.thisTokenWasNeverIssued' });
    for (const call of [() => wrong.status(), () => wrong.wrap(randomBytes(32), CONTEXT)])
      await assert.rejects(call, (error: Error) => {
        assert.equal((error as { code?: string }).code, 'ERR_KMS_CREDENTIALS');
        assert.doesNotMatch(JSON.stringify(error) + error.stack, /thisTokenWasNeverIssued/);
        return true;
      });
    const other = await kekOf('guarded', { token: await bao.tokenFor(policyFor('another')) });
    await assert.rejects(other.status(), { code: 'ERR_KMS_DENIED', message: /transit\/keys\/guarded/ });

    const short = await kekOf('guarded', { token: await bao.tokenFor(policyFor('guarded'), '3s') });
    assert.equal((await short.status()).enabled, true);
    await delay(3500);
    await assert.rejects(short.status(), { code: 'ERR_KMS_CREDENTIALS' });
  });

  describe('by AppRole', () => {
    let roleID: string;
    const secret = async (options: object = {}) => {
      const { data } = await bao.admin('POST', 'auth/approle/role/asterism/secret-id', options);
      return data as { secret_id: string; secret_id_accessor: string };
    };
    const tokensOut = async () => {
      const { data } = await bao.admin('LIST', 'auth/token/accessors');
      return (data as { keys: string[] }).keys.length;
    };
    before(async () => {
      await makeKey('by-role');
      await bao.admin('PUT', 'sys/policies/acl/by-role', { policy: policyFor('by-role') });
      await bao.admin('POST', 'auth/approle/role/asterism', { token_policies: ['by-role'], token_ttl: '6s' });
      const { data } = await bao.admin('GET', 'auth/approle/role/asterism/role-id');
      roleID = (data as { role_id: string }).role_id;
    });

    test('one login serves many calls, and is repeated before the token ends', async () => {
      const kek = await kekOf('by-role', { roleID, secretID: (await secret()).secret_id });
      const before = await tokensOut();
      await Promise.all(Array.from({ length: 20 }, () => kek.status()));
      assert.equal(await tokensOut(), before + 1);
      const wrapped = await kek.wrap(randomBytes(32), CONTEXT);
      for (let i = 0; i < 15; i++) {
        await delay(500);
        await kek.unwrap(wrapped, CONTEXT);
      }
    });

    test('a token that was revoked is replaced; without a valid secret id that is an error', async () => {
      const { secret_id, secret_id_accessor } = await secret();
      const kek = await kekOf('by-role', { roleID, secretID: secret_id });
      await kek.status();
      await bao.admin('PUT', 'sys/leases/revoke-prefix/auth/approle', {});
      assert.equal((await kek.status()).enabled, true);
      await bao.admin('POST', 'auth/approle/role/asterism/secret-id-accessor/destroy', {
        secret_id_accessor,
      });
      await bao.admin('PUT', 'sys/leases/revoke-prefix/auth/approle', {});
      await assert.rejects(kek.status(), (error: Error) => {
        assert.equal((error as { code?: string }).code, 'ERR_KMS_CREDENTIALS');
        assert.doesNotMatch(JSON.stringify(error) + error.stack, new RegExp(secret_id));
        return true;
      });
    });

    test('wrong ids and a wrong mount are wrong credentials', async () => {
      const good = (await secret()).secret_id;
      for (const [credentials, parameters] of [
        [{ roleID, secretID: 'wrong' }, {}],
        [{ roleID: 'wrong', secretID: good }, {}],
        [{ roleID, secretID: good }, { authMount: 'elsewhere' }],
      ] as const)
        await assert.rejects((await kekOf('by-role', credentials, parameters)).status(), {
          code: 'ERR_KMS_CREDENTIALS',
        });
    });

    test('who gives up while logging in does not end the login of others', async () => {
      const kek = await kekOf('by-role', { roleID, secretID: (await secret()).secret_id });
      const controller = new AbortController();
      const [first, second] = [kek.status(controller.signal), kek.status()];
      controller.abort(new Error('enough'));
      await assert.rejects(first, /enough/);
      assert.equal((await second).enabled, true);
    });
  });

  test('a key in a namespace', async () => {
    await bao.admin('PUT', 'sys/namespaces/team', {});
    await bao.admin('POST', 'sys/mounts/keys/transit', { type: 'transit' }, 'team');
    await bao.admin('POST', 'keys/transit/keys/kek', { type: 'aes256-gcm96' }, 'team');
    const token = { token: bao.rootToken };
    const kek = await kekOf('kek', token, { namespace: 'team', mount: 'keys/transit' });
    const wrapped = await kek.wrap(randomBytes(32), CONTEXT);
    assert.equal(wrapped.keyId, 'keys/transit/kek:v1');
    await kek.unwrap(wrapped, CONTEXT);
    const outside = await kekOf('kek', token, { mount: 'keys/transit' });
    await assert.rejects(outside.status(), { code: 'ERR_KMS_KEY_NOT_FOUND' });
    const nowhere = await kekOf('kek', token, { namespace: 'nobody', mount: 'keys/transit' });
    await assert.rejects(nowhere.status(), { code: 'ERR_KMS_KEY_NOT_FOUND', message: /namespace not found/ });
  });

  test('a burst beyond the rate limit is waited out, a lasting one is told', async () => {
    const kek = await ownKek('limited');
    await bao.admin('POST', 'sys/quotas/rate-limit/few', { path: 'transit/', rate: 1, interval: '10m' });
    try {
      await kek.status();
      await assert.rejects(kek.status(), { name: 'KmsUnavailableError', code: 'ERR_KMS_THROTTLED' });
      const waiting = assert.doesNotReject(kek.status());
      await bao.admin('DELETE', 'sys/quotas/rate-limit/few');
      await waiting;
    } finally {
      await bao.admin('DELETE', 'sys/quotas/rate-limit/few');
    }
  });

  test('sealed, killed, and back again', async () => {
    const kek = await ownKek('survivor');
    const key = randomBytes(32);
    const wrapped = await kek.wrap(key, CONTEXT);
    const unavailable = { name: 'KmsUnavailableError', code: 'ERR_KMS_UNAVAILABLE' };
    await bao.seal();
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), { ...unavailable, message: /sealed/ });
    await bao.unseal();
    assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, CONTEXT)), key);
    await bao.kill();
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), unavailable);
    await assert.rejects(kek.wrap(key, CONTEXT), unavailable);
    await bao.start();
    assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, CONTEXT)), key);
  });

  test('a server whose certificate another authority signed gets nothing', async () => {
    await makeKey('foreign');
    const kek = await kekOf('foreign', { token: bao.rootToken, caCertificate: (await testCa()).pem });
    await assert.rejects(kek.status(), { code: 'ERR_KMS_ANSWER', message: /certificate/ });
  });
});
