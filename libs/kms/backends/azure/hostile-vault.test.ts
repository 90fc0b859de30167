import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { type KeyVault, startKeyVault } from '@asterism/testkit/counterparts/key-vault';
import { testCa } from '@asterism/testkit/test-ca';
import type { Kek } from '../../kek.ts';
import { type AzureHome, azureHome } from './azure-home.fixture.ts';

const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';
const key = () => new Uint8Array(randomBytes(32));

describe('Azure Key Vault: a vault that misbehaves', () => {
  let home: AzureHome;
  before(async () => {
    home = await azureHome();
  });
  afterEach(() => home.reset());
  after(() => home?.[Symbol.asyncDispose]());

  const failure = async (instead: KeyVault['instead'], work: (kek: Kek) => Promise<unknown>) => {
    home.vault.instead = undefined;
    const kek = await home.open();
    await kek.wrap(key(), CONTEXT);
    home.vault.instead = instead;
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
      redirection: () => ({ status: 307, headers: { location: `${home.authority.origin}/` } }),
      packed: () => ({ status: 200, headers: { 'content-encoding': 'gzip' }, body: 'xx' }),
      'another key': () => ({
        status: 200,
        body: {
          key: { kid: `${home.vault.origin}/keys/other/${version}`, kty: 'RSA' },
          attributes: { enabled: true },
        },
      }),
      'version that is a path': () => ({
        status: 200,
        body: { key: { kid: `${home.vault.origin}/keys/kek/..`, kty: 'RSA' }, attributes: { enabled: true } },
      }),
      'unheard-of status': () => ({ status: 418, body: {} }),
    };
    for (const [name, instead] of Object.entries(answers)) {
      const error = await failure(instead, (kek) => kek.status());
      assert.equal(error.code, 'ERR_KMS_ANSWER', name);
    }
  });

  test('wrapped and unwrapped values that cannot be', async () => {
    const wrapped = await home.kek.wrap(key(), CONTEXT);
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
    const impostor = await startKeyVault(stranger, home.authority);
    const misnamed = await startKeyVault(home.ca, home.authority, { certificateOf: '127.0.0.9' });
    try {
      for (const { origin, requests } of [impostor, misnamed]) {
        const kek = await home.open({ endpoint: origin });
        await assert.rejects(kek.wrap(key(), CONTEXT), { code: 'ERR_KMS_ANSWER' });
        assert.deepEqual(requests, []);
      }
    } finally {
      await impostor.kill();
      await misnamed.kill();
    }
  });

  test('a vault that is killed between two calls', async () => {
    const other = await startKeyVault(home.ca, home.authority);
    other.addKey('kek');
    const kek = await home.open({ endpoint: other.origin });
    const wrapped = await kek.wrap(key(), CONTEXT);
    await other.kill();
    for (const call of [kek.status(), kek.wrap(key(), CONTEXT), kek.unwrap(wrapped, CONTEXT)])
      await assert.rejects(call, { name: 'KmsUnavailableError', code: 'ERR_KMS_UNAVAILABLE' });
  });
});
