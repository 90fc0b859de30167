import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';
import { type ScriptedAnswer, type ScriptedHttp, scriptedHttp } from '@asterism/testkit/scripted-http';
import { testCa } from '@asterism/testkit/test-ca';
import type { KmsUnavailableError } from '../../errors.ts';
import type { Kek } from '../../kek.ts';
import { open } from './backend.ts';

// moto is never busy, uses keys that are disabled, and knows no expired credentials: here a server of our own says what
// AWS says then (AWS KMS API reference, "Common Errors" and the errors of Encrypt, Decrypt and DescribeKey).

const ARN = 'arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab';
const SECRETS = ['secret/of+the=test-0123456789abcdef', 'TOKEN+of/the=session0123456789abcdef'] as const;
const CREDENTIALS = { accessKeyID: 'AKIAEXAMPLE', accessKey: SECRETS[0], sessionToken: SECRETS[1] };
/** A key that came back: it must not be in an error either, whatever is wrong with the answer around it. */
const PLAINTEXT = Buffer.alloc(32, 'key').toString('base64');
const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';

const json = (status: number, body: object, headers = {}): ScriptedAnswer => ({
  status,
  headers: { 'content-type': 'application/x-amz-json-1.1', ...headers },
  body: JSON.stringify(body),
});
const key = () => new Uint8Array(randomBytes(32));
const wrapped = { mechanism: 1, keyId: ARN, wrappedKey: new Uint8Array(randomBytes(150)) };
const openAt = (endpoint: string, credentials: Record<string, string> = CREDENTIALS) =>
  open({ parameters: { region: 'eu-central-1', keyName: ARN, endpoint }, credentials });

async function withServer(
  answer: Parameters<typeof scriptedHttp>[0],
  use: (kek: Kek, server: ScriptedHttp) => Promise<void>,
): Promise<void> {
  await using server = await scriptedHttp(answer);
  const kek = await openAt(server.endpoint);
  try {
    await use(kek, server);
  } finally {
    await kek.close();
  }
}

/** Nothing of the credentials in any property of the error or of its causes. */
function assertNoSecrets(error: unknown): void {
  const shown = inspect(error, { depth: 20, showHidden: true, maxStringLength: null, maxArrayLength: null });
  for (const secret of [...SECRETS, PLAINTEXT, PLAINTEXT.slice(0, 16)])
    assert.ok(!shown.includes(secret), `a secret is in: ${shown}`);
}

async function refusal(work: Promise<unknown>): Promise<Error & { code: string }> {
  const error = await work.then(
    () => assert.fail('it was not refused'),
    (error: unknown) => error as Error & { code: string },
  );
  assertNoSecrets(error);
  assert.ok(error.message.length < 600, 'messages stay short');
  return error;
}

describe('what AWS refuses has its own code', { concurrency: true }, () => {
  for (const [status, type, name, code] of [
    [400, 'ThrottlingException', 'KmsUnavailableError', 'ERR_KMS_THROTTLED'],
    [400, 'LimitExceededException', 'KmsUnavailableError', 'ERR_KMS_THROTTLED'],
    [429, 'SomethingNew', 'KmsUnavailableError', 'ERR_KMS_THROTTLED'],
    [500, 'KMSInternalException', 'KmsUnavailableError', 'ERR_KMS_UNAVAILABLE'],
    [500, 'KeyUnavailableException', 'KmsUnavailableError', 'ERR_KMS_UNAVAILABLE'],
    [503, 'DependencyTimeoutException', 'KmsUnavailableError', 'ERR_KMS_UNAVAILABLE'],
    [502, 'SomethingNew', 'KmsUnavailableError', 'ERR_KMS_UNAVAILABLE'],
    [400, 'ExpiredTokenException', 'KmsError', 'ERR_KMS_CREDENTIALS'],
    [400, 'UnrecognizedClientException', 'KmsError', 'ERR_KMS_CREDENTIALS'],
    [400, 'InvalidSignatureException', 'KmsError', 'ERR_KMS_CREDENTIALS'],
    [403, 'InvalidClientTokenId', 'KmsError', 'ERR_KMS_CREDENTIALS'],
    [403, 'MissingAuthenticationToken', 'KmsError', 'ERR_KMS_CREDENTIALS'],
    [400, 'AccessDeniedException', 'KmsError', 'ERR_KMS_DENIED'],
    [400, 'NotFoundException', 'KmsError', 'ERR_KMS_KEY_NOT_FOUND'],
    [400, 'DisabledException', 'KmsError', 'ERR_KMS_KEY_DISABLED'],
    [400, 'KMSInvalidStateException', 'KmsError', 'ERR_KMS_KEY_DISABLED'],
    [400, 'InvalidCiphertextException', 'KmsError', 'ERR_KMS_UNWRAP'],
    [400, 'IncorrectKeyException', 'KmsError', 'ERR_KMS_UNWRAP'],
    [400, 'InvalidKeyUsageException', 'KmsError', 'ERR_KMS_SETTINGS'],
    [400, 'ValidationException', 'KmsError', 'ERR_KMS_SETTINGS'],
    [400, 'SomethingNew', 'KmsError', 'ERR_KMS_ANSWER'],
  ] as const) {
    test(`${status} ${type}: ${code}`, async () => {
      // AWS repeats the headers that were signed, the session token among them, when a signature does not match.
      const answer = json(status, {
        __type: `com.amazonaws.kms#${type}`,
        message: `The Canonical String should have been x-amz-security-token:${SECRETS[1]} ${SECRETS[0]}`,
        token: SECRETS[1],
      });
      await withServer(
        () => answer,
        async (kek, { requests }) => {
          const error = await refusal(kek.unwrap(wrapped, CONTEXT));
          assert.equal(error.name, name);
          assert.equal(error.code, code);
          assert.match(error.message, new RegExp(`kms:Decrypt.*${type}`));
          assert.equal(requests.length, name === 'KmsError' ? 1 : 2, 'tries');
        },
      );
    });
  }
});

test('what is asked of AWS: the key by name, and the context as encryption context, where there is one', async () => {
  const secret = key();
  const answer = json(200, {
    KeyId: ARN,
    Plaintext: Buffer.from(secret).toString('base64'),
    CiphertextBlob: 'YQ==',
  });
  await withServer(
    () => answer,
    async (kek, { requests }) => {
      assert.deepEqual(await kek.unwrap(wrapped, undefined), secret);
      await kek.unwrap(wrapped, CONTEXT);
      await kek.wrap(secret, CONTEXT);
      const CiphertextBlob = Buffer.from(wrapped.wrappedKey).toString('base64');
      const EncryptionContext = { asterism: CONTEXT };
      assert.deepEqual(
        requests.map(({ body }) => JSON.parse(body.toString())),
        [
          { KeyId: ARN, CiphertextBlob },
          { KeyId: ARN, CiphertextBlob, EncryptionContext },
          { KeyId: ARN, Plaintext: Buffer.from(secret).toString('base64'), EncryptionContext },
        ],
      );
      for (const { headers } of requests) {
        assert.match(
          headers.authorization ?? '',
          /^AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE\/\d{8}\/eu-central-1\/kms\//,
        );
        assert.equal(headers['x-amz-security-token'], SECRETS[1]);
      }
    },
  );
});

test('what cannot be of AWS KMS is refused before it is sent', async () => {
  await withServer(
    () => json(500, {}),
    async (kek, { requests }) => {
      for (const foreign of [
        { ...wrapped, mechanism: 2 },
        { ...wrapped, wrappedKey: new Uint8Array() },
        { ...wrapped, wrappedKey: new Uint8Array(6145) },
      ])
        assert.equal((await refusal(kek.unwrap(foreign, CONTEXT))).code, 'ERR_KMS_UNWRAP');
      assert.equal(requests.length, 0);
    },
  );
});

test('throttled once and then served; the time that the server named is passed on', async () => {
  const answer = json(200, { KeyId: ARN, CiphertextBlob: 'YQ==' });
  const busy = json(400, { __type: 'ThrottlingException' }, { 'retry-after': '2' });
  await withServer(
    (_, number) => (number === 0 ? busy : answer),
    async (kek) => {
      assert.equal((await kek.wrap(key(), CONTEXT)).keyId, ARN);
    },
  );
  await withServer(
    () => busy,
    async (kek, { requests }) => {
      const error = (await refusal(kek.wrap(key(), CONTEXT))) as unknown as KmsUnavailableError;
      assert.equal(error.code, 'ERR_KMS_THROTTLED');
      assert.equal(error.retryAfterMs, 2000);
      assert.equal(requests.length, 2);
    },
  );
});

describe('answers that make no sense', { concurrency: true }, () => {
  const page = { status: 200, headers: { 'content-type': 'text/html' }, body: '<html>Log in first</html>' };
  const good = { Plaintext: PLAINTEXT, KeyId: ARN, CiphertextBlob: 'YQ==' };
  for (const [what, answer] of [
    ['a page instead of JSON', page],
    ['an error page', { ...page, status: 403 }],
    ['a redirect', { status: 302, headers: { location: 'http://127.0.0.1:1/' } }],
    ['nothing', { status: 200 }],
    ['half of the JSON', { status: 200, body: JSON.stringify(good).slice(0, 60) }],
    ['an array', json(200, [])],
    ['null', { status: 200, body: 'null' }],
    ['wrong types', json(200, { KeyId: [ARN], CiphertextBlob: 7, Plaintext: {} })],
    ['no wrapped key and no plaintext', json(200, { KeyId: ARN })],
    [
      'a wrapped key that is too long',
      json(200, { ...good, CiphertextBlob: 'A'.repeat(8200), Plaintext: 'YQ==' }),
    ],
    ['a name that is no ARN of a key', json(200, { ...good, KeyId: 'alias/other', Plaintext: 'YQ==' })],
  ] as const satisfies [string, ScriptedAnswer][]) {
    test(what, async () => {
      await withServer(
        () => answer,
        async (kek) => {
          assert.equal((await refusal(kek.wrap(key(), CONTEXT))).code, 'ERR_KMS_ANSWER');
          assert.equal((await refusal(kek.unwrap(wrapped, CONTEXT))).code, 'ERR_KMS_ANSWER');
          assert.equal((await refusal(kek.status())).code, 'ERR_KMS_ANSWER');
        },
      );
    });
  }
});

test('its state, its kind and its use decide whether a key is enabled', async () => {
  const good = { Arn: ARN, KeyState: 'Enabled', KeySpec: 'SYMMETRIC_DEFAULT', KeyUsage: 'ENCRYPT_DECRYPT' };
  for (const [change, enabled] of [
    [{}, true],
    [{ KeyState: 'Disabled' }, false],
    [{ KeyState: 'PendingDeletion' }, false],
    [{ KeyState: 'PendingImport' }, false],
    [{ KeyState: 'Unavailable' }, false],
    [{ KeySpec: 'RSA_2048' }, false],
    [{ KeyUsage: 'SIGN_VERIFY' }, false],
    [{ KeyState: `no ${SECRETS[1]} word` }, false],
  ] as const) {
    await withServer(
      () => json(200, { KeyMetadata: { ...good, ...change } }),
      async (kek) => {
        const status = await kek.status();
        assert.equal(status.enabled, enabled, JSON.stringify(change));
        assert.ok(!status.detail.includes(SECRETS[1]));
      },
    );
  }
});

describe('servers that do not behave', { concurrency: true }, () => {
  const start = (response: ServerResponse, length: number, status = 200) =>
    response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1', 'content-length': length });

  test('a body that does not end is cut off', async () => {
    let sent = 0;
    const flood = (response: ServerResponse, status: number) => {
      const chunk = Buffer.alloc(64 * 1024, ' ');
      start(response, 1 << 30, status);
      const more = () => {
        if (response.destroyed || sent > 1 << 27) return;
        sent += chunk.length;
        response.write(chunk, () => setImmediate(more));
      };
      more();
    };
    for (const status of [200, 500])
      await withServer(
        () => (response) => flood(response, status),
        async (kek) => {
          assert.equal((await refusal(kek.unwrap(wrapped, CONTEXT))).code, 'ERR_KMS_ANSWER');
        },
      );
    assert.ok(sent < 1 << 26, `${sent} bytes were taken`);
  });

  test('a body that breaks off', async () => {
    await withServer(
      () => (response) => {
        start(response, 1000).write('{"KeyId":"');
        setTimeout(() => response.destroy(), 20);
      },
      async (kek) => {
        const error = await refusal(kek.unwrap(wrapped, CONTEXT));
        assert.equal(error.code, 'ERR_KMS_UNAVAILABLE');
      },
    );
  });

  for (const [what, hang] of [
    ['no answer', () => {}],
    ['half an answer', (response: ServerResponse) => start(response, 1000).write('{"KeyId":"')],
  ] as const) {
    test(`${what}: it ends in time, and at once when it is given up`, async () => {
      await withServer(
        () => hang,
        async (kek) => {
          const controller = new AbortController();
          const givenUp = kek.unwrap(wrapped, CONTEXT, controller.signal);
          setTimeout(() => controller.abort(new Error('enough')), 100);
          const started = performance.now();
          await assert.rejects(givenUp, /enough/);
          const error = await refusal(kek.unwrap(wrapped, CONTEXT));
          assert.equal(error.name, 'KmsUnavailableError');
          assert.equal(error.code, 'ERR_KMS_UNAVAILABLE');
          assert.ok(performance.now() - started < 20_000);
        },
      );
    });
  }

  test('nobody there any more', async () => {
    const server = await scriptedHttp(() => json(200, {}));
    const kek = await openAt(server.endpoint);
    await server[Symbol.asyncDispose]();
    const error = await refusal(kek.status());
    assert.equal(error.name, 'KmsUnavailableError');
    assert.equal(error.code, 'ERR_KMS_UNAVAILABLE');
    await kek.close();
  });
});

describe('TLS of the endpoint', async () => {
  const ca = await testCa();
  const other = await testCa('Somebody else');
  const answer = json(200, { KeyMetadata: { Arn: ARN, KeyState: 'Enabled' } });
  const local = { usage: 'server', addresses: ['127.0.0.1'] } as const;
  const trying = async (pair: Awaited<ReturnType<typeof ca.issue>>, caCertificate?: string) => {
    await using server = await scriptedHttp(() => answer, pair);
    const kek = await openAt(server.endpoint, { ...CREDENTIALS, ...(caCertificate && { caCertificate }) });
    try {
      return await kek.status();
    } finally {
      await kek.close();
      if (server.requests.length > 0) assert.equal(caCertificate, ca.pem, 'nothing was sent to a stranger');
    }
  };

  test('with the authority that is given it works', async () => {
    assert.equal((await trying(await ca.issue({ name: 'localhost', ...local }), ca.pem)).keyId, ARN);
  });

  test('another authority, another name or an old certificate is refused, and nothing is sent', async () => {
    const refused = async (work: Promise<unknown>) =>
      assert.equal((await refusal(work)).code, 'ERR_KMS_ANSWER');
    await refused(trying(await ca.issue({ name: 'localhost', ...local })));
    await refused(trying(await ca.issue({ name: 'localhost', ...local }), other.pem));
    await refused(trying(await other.issue({ name: 'localhost', ...local }), ca.pem));
    await refused(trying(await ca.issue({ name: 'kms.internal', usage: 'server' }), ca.pem));
    await refused(trying(await ca.issue({ name: 'localhost', ...local, expired: true }), ca.pem));
  });
});

test('settings that must not be used are refused before anything is sent', async () => {
  for (const [endpoint, credentials, message] of [
    ['http://kms.example:8080', CREDENTIALS, /must be https/],
    ['https://kms.example', {}, /credentials of its own/],
    ['https://kms.example', { caCertificate: 'x' }, /credentials of its own/],
    ['https://kms.example', { accessKeyID: 'AKIAEXAMPLE' }, /together/],
    ['https://kms.example', { accessKey: SECRETS[0] }, /together/],
    ['https://kms.example', { sessionToken: SECRETS[1] }, /together/],
  ] as const) {
    const error = await refusal(openAt(endpoint, credentials));
    assert.equal(error.code, 'ERR_KMS_SETTINGS');
    assert.match(error.message, message);
  }
});
