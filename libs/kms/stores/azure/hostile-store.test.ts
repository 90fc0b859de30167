import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { type Authority, startAuthority } from '@asterism/testkit/counterparts/key-vault/authority';
import {
  type Answering,
  type Asked,
  httpsServer,
  type TestServer,
} from '@asterism/testkit/counterparts/key-vault/https-server';
import { type TestCa, testCa } from '@asterism/testkit/test-ca';
import type { Settings } from '../../settings.ts';
import type { DekStore } from '../../store.ts';
import { open } from './store.ts';

const content = () => new Uint8Array(randomBytes(100));
const listed = async (store: DekStore) => {
  const names: string[] = [];
  for await (const name of store.list()) names.push(name);
  return names.sort();
};

describe('Azure Blob Storage: on the wire', () => {
  let ca: TestCa;
  let authority: Authority;
  const opened: DekStore[] = [];

  const settings = (endpoint: string): Settings => ({
    parameters: { account: 'account', container: 'deks', endpoint },
    credentials: { accountKey: randomBytes(64).toString('base64'), caCertificate: ca.pem },
  });
  const storeOf = async (given: Settings) => {
    const store = await open(given);
    opened.push(store);
    return store;
  };
  /** A store that answers what the test wants. */
  const hostile = async (answer: (asked: Asked) => Answering, by: TestCa = ca) => {
    const server: TestServer = await httpsServer(by, answer);
    const endpoint = `${server.origin}/account`;
    return {
      endpoint,
      open: () => storeOf(settings(endpoint)),
      [Symbol.asyncDispose]: () => server.kill(),
    };
  };

  before(async () => {
    ca = await testCa();
    authority = await startAuthority(ca);
    process.env.AZURE_AUTHORITY_HOST = authority.origin;
  });
  afterEach(async () => {
    for (const store of opened.splice(0)) await store.close();
  });
  after(async () => {
    delete process.env.AZURE_AUTHORITY_HOST;
    await authority?.kill();
  });

  test('plain HTTP is for a store on this machine', async () => {
    const server = createServer((_, response) => response.writeHead(201, { etag: '"0x1"' }).end());
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
      const { port } = server.address() as AddressInfo;
      const store = await storeOf(settings(`http://127.0.0.1:${port}/account`));
      assert.equal(await store.create('key-one', content()), 'created');
      const { parameters } = settings(`http://127.0.0.1:${port}/account`);
      const { tenantId: tenantID, clientId: clientID, clientSecret } = authority;
      await assert.rejects(
        open({ parameters: { ...parameters, tenantID, clientID }, credentials: { clientSecret } }),
        { code: 'ERR_STORE_SETTINGS' },
      );
    } finally {
      server.close();
      server.closeAllConnections();
    }
  });

  test('an object is written in one exchange that names its condition', async () => {
    const asked: Asked[] = [];
    await using server = await hostile((one) => {
      asked.push(one);
      return { status: 201, headers: { etag: '"0x1"' }, body: '' };
    });
    const store = await server.open();
    await store.create('key-one', content());
    await store.replace('key-one', content(), '"0x2"');
    assert.deepEqual(
      asked.map(({ headers }) => [headers['if-none-match'], headers['if-match']]),
      [
        ['*', undefined],
        [undefined, '"0x2"'],
      ],
    );
  });

  describe('a store that misbehaves', () => {
    const failure = async (
      answer: (asked: Asked) => Answering,
      work: (store: DekStore) => Promise<unknown>,
    ) => {
      await using server = await hostile(answer);
      const store = await server.open();
      return await work(store).then(
        (value): never => assert.fail(`got ${inspect(value)}`),
        (reason: Error & { code?: string; retryAfterMs?: number }) => reason,
      );
    };

    test('throttling is an error that can be tried again, with the time that it names', async () => {
      for (const [status, code] of [
        [429, 'TooManyRequests'],
        [503, 'ServerBusy'],
      ] as const) {
        const headers = { 'x-ms-error-code': code, 'retry-after': '3' };
        for (const work of [
          (store: DekStore) => store.get('key-one'),
          (store: DekStore) => store.create('key-one', content()),
          (store: DekStore) => listed(store),
        ]) {
          const error = await failure(() => ({ status, headers }), work);
          assert.deepEqual([error.code, error.retryAfterMs], ['ERR_STORE_THROTTLED', 3000]);
        }
      }
      const error = await failure(
        () => ({ status: 500 }),
        (store) => store.get('key-one'),
      );
      assert.equal(error.code, 'ERR_STORE_UNAVAILABLE');
    });

    test('nothing but the service saying so means that there is no object', async () => {
      const answers: Record<string, () => Answering> = {
        'a 404 of something else': () => ({ status: 404, body: '<html>not found</html>' }),
        'a code without the status': () => ({ status: 400, headers: { 'x-ms-error-code': 'BlobNotFound' } }),
        'no ETag': () => ({ status: 200, headers: { 'content-length': '2' }, body: 'xx' }),
        redirection: () => ({ status: 302, headers: { location: 'https://127.0.0.1:1/' } }),
        'too large': () => ({ status: 200, headers: { etag: '"1"' }, body: 'x'.repeat(65 * 1024) }),
        huge: () => ({ status: 200, headers: { etag: '"1"' }, body: 'x'.repeat(2 << 20) }),
        'precondition without one': () => ({
          status: 412,
          headers: { 'x-ms-error-code': 'ConditionNotMet' },
        }),
      };
      for (const [name, answer] of Object.entries(answers)) {
        const error = await failure(answer, (store) => store.get('key-one'));
        assert.equal(error.code, 'ERR_STORE_ANSWER', name);
      }
      const cut = await failure(
        () => (response) => {
          response.writeHead(200, { etag: '"1"', 'content-length': '100' });
          response.write('half');
          setTimeout(() => response.destroy(), 50);
        },
        (store) => store.get('key-one'),
      );
      assert.equal(cut.code, 'ERR_STORE_UNAVAILABLE');
    });

    test('listings that are no XML, never end, or name what is no key', async () => {
      const xml = (inside: string, next = '') =>
        `<?xml version="1.0"?><EnumerationResults ServiceEndpoint="x" ContainerName="deks"><Blobs>${inside}</Blobs><NextMarker>${next}</NextMarker></EnumerationResults>`;
      const blob = (name: string) => `<Blob><Name>${name}</Name><Properties/></Blob>`;
      const headers = { 'content-type': 'application/xml' };
      for (const body of ['<html', xml(blob('key-a'), 'again'), 'x'.repeat(2 << 20)]) {
        const error = await failure(() => ({ status: 200, headers, body }), listed);
        assert.equal(error.code, 'ERR_STORE_ANSWER', body.slice(0, 40));
      }
      await using server = await hostile(() => ({
        status: 200,
        headers,
        body: xml(['..', 'a/b', 'key-good', '&lt;x&gt;', 'x'.repeat(200)].map(blob).join('')),
      }));
      assert.deepEqual(await listed(await server.open()), ['key-good']);
    });

    test('a role that is missing, and a firewall', async () => {
      for (const code of ['AuthorizationPermissionMismatch', 'AuthorizationFailure']) {
        const error = await failure(
          () => ({ status: 403, headers: { 'x-ms-error-code': code } }),
          (store) => store.create('key-one', content()),
        );
        assert.equal(error.code, 'ERR_STORE_DENIED');
        assert.ok(error.message.includes(code));
      }
    });

    test('a challenge for a token of another service gets none', async () => {
      const before = authority.scopes.length;
      await using server = await hostile(() => ({
        status: 401,
        headers: {
          'www-authenticate': `Bearer authorization_uri=${authority.origin}/${authority.tenantId}/oauth2/authorize resource_id=https://management.azure.com`,
        },
      }));
      const { parameters } = settings(server.endpoint);
      const { tenantId: tenantID, clientId: clientID, clientSecret } = authority;
      const store = await storeOf({
        parameters: { ...parameters, tenantID, clientID },
        credentials: { clientSecret, caCertificate: ca.pem },
      });
      await assert.rejects(store.get('key-one'), { code: /ERR_STORE_(ANSWER|CREDENTIALS)/ });
      assert.ok(authority.scopes.slice(before).every((scope) => !scope.includes('management')));
    });

    test('one that hangs is left when the caller gives up, and in 10 seconds otherwise', async () => {
      const gone = await failure(
        () => 'hang',
        (store) => store.get('key-one', AbortSignal.timeout(200)),
      );
      assert.equal(gone.name, 'TimeoutError');
      const late = await failure(
        () => 'hang',
        (store) => store.create('key-one', content()),
      );
      assert.equal(late.code, 'ERR_STORE_UNAVAILABLE');
    });

    test('one with a certificate of somebody else is not spoken to', async () => {
      const stranger = await testCa('somebody else');
      const asked: Asked[] = [];
      await using server = await hostile((one) => {
        asked.push(one);
        return { status: 201 };
      }, stranger);
      const store = await server.open();
      await assert.rejects(store.create('key-one', content()), { code: 'ERR_STORE_ANSWER' });
      assert.deepEqual(asked, []);
    });
  });
});
