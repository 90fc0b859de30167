import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { type ScriptedAnswer, type SeenRequest, scriptedHttp } from '@asterism/testkit/scripted-http';
import { testCa } from '@asterism/testkit/test-ca';
import { crc32c } from '../../crc32c.ts';
import { answer, hostileGoogle, printed, refusal, serviceAccountKey, TOKEN } from '../../google.fixture.ts';
import { open } from './backend.ts';

const KEY = 'projects/project/locations/global/keyRings/ring/cryptoKeys/kek';
const VERSION = `${KEY}/cryptoKeyVersions/1`;
const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';
const secret = new Uint8Array(32).fill(0x5a);
const sealed = new Uint8Array(64).fill(7);
const wrapped = { mechanism: 1, keyId: VERSION, wrappedKey: sealed };

const parameters = { projectID: 'project', location: 'global', keyRing: 'ring', keyName: 'kek' };

const encrypted = {
  name: VERSION,
  ciphertext: toBase64(sealed),
  ciphertextCrc32c: String(crc32c(sealed)),
  verifiedPlaintextCrc32c: true,
  verifiedAdditionalAuthenticatedDataCrc32c: true,
};
const decrypted = { plaintext: toBase64(secret), plaintextCrc32c: String(crc32c(secret)) };

async function against(
  script: (request: SeenRequest) => ScriptedAnswer,
  options: { timeoutMs?: number } = {},
) {
  const server = await hostileGoogle(script);
  const kek = await open(
    {
      parameters: { ...parameters, endpoint: server.endpoint },
      credentials: { serviceAccountKey: server.serviceAccountKey },
    },
    options,
  );
  return {
    server,
    kek,
    async [Symbol.asyncDispose]() {
      await kek.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** Nothing of it may be in an error, whoever repeats it. */
function assertSilent(error: unknown): void {
  const text = printed(error);
  for (const [what, part] of Object.entries({
    token: TOKEN,
    key: toBase64(secret).slice(0, 20),
    account: 'PRIVATE KEY',
    assertion: 'eyJ',
  }))
    assert.ok(!text.includes(part), `the error shows the ${what}: ${text}`);
}

const code = (expected: string) => (error: unknown) => {
  assertSilent(error);
  assert.equal((error as { code?: string }).code, expected);
  return true;
};

describe('a Cloud KMS that lies', () => {
  test('what is sent carries checksums and the context, and nothing else', async () => {
    await using it = await against(({ path }) =>
      answer(200, path.endsWith(':encrypt') ? encrypted : decrypted),
    );
    await it.kek.wrap(secret, CONTEXT);
    await it.kek.unwrap(wrapped, CONTEXT);
    await it.kek.unwrap(wrapped, undefined);
    const aad = {
      additionalAuthenticatedData: toBase64(toUtf8(CONTEXT)),
      additionalAuthenticatedDataCrc32c: String(crc32c(toUtf8(CONTEXT))),
    };
    const bodies = it.server.requests
      .filter(({ path }) => path !== '/token')
      .map(({ body }) => JSON.parse(String(body)));
    const ciphertext = { ciphertext: toBase64(sealed), ciphertextCrc32c: String(crc32c(sealed)) };
    assert.deepEqual(bodies, [{ ...decrypted, ...aad }, { ...ciphertext, ...aad }, ciphertext]);
    assert.deepEqual(it.server.calls(), [
      `POST /v1/${KEY}:encrypt`,
      `POST /v1/${KEY}:decrypt`,
      `POST /v1/${KEY}:decrypt`,
    ]);
    const { headers } = it.server.requests.at(-1)!;
    assert.equal(headers.authorization, `Bearer ${TOKEN}`);
  });

  const badEncrypted: Record<string, unknown> = {
    'a wrong checksum': { ...encrypted, ciphertextCrc32c: '1' },
    'no checksum': { ...encrypted, ciphertextCrc32c: undefined },
    'a checksum that is a number': { ...encrypted, ciphertextCrc32c: crc32c(sealed) },
    'a plaintext that it did not verify': { ...encrypted, verifiedPlaintextCrc32c: false },
    'a context that it did not verify': {
      ...encrypted,
      verifiedAdditionalAuthenticatedDataCrc32c: undefined,
    },
    'another key': { ...encrypted, name: `${KEY}2/cryptoKeyVersions/1` },
    'a key without a version': { ...encrypted, name: KEY },
    'no ciphertext': { ...encrypted, ciphertext: '' },
    'a ciphertext that is too long': { ...encrypted, ciphertext: toBase64(new Uint8Array(8193)) },
    'a ciphertext that is no base64': { ...encrypted, ciphertext: '%%%%' },
    'a list': [],
    nothing: '',
    'what we sent': `{"error": "Bearer ${TOKEN} ${toBase64(secret)}"`,
  };
  for (const [what, body] of Object.entries(badEncrypted)) {
    test(`wrap: ${what}`, async () => {
      await using it = await against(() => answer(200, body));
      await assert.rejects(it.kek.wrap(secret, CONTEXT), code('ERR_KMS_ANSWER'));
      assert.equal(it.server.calls().length, 1);
    });
  }

  const short = secret.slice(1);
  const badDecrypted: Record<string, unknown> = {
    'a wrong checksum': { ...decrypted, plaintextCrc32c: '1' },
    'a checksum out of range': { ...decrypted, plaintextCrc32c: '4294967296' },
    'no checksum': { plaintext: decrypted.plaintext },
    'a short key': { plaintext: toBase64(short), plaintextCrc32c: String(crc32c(short)) },
    'no key': { plaintext: '', plaintextCrc32c: '0' },
    'a truncated answer': JSON.stringify(decrypted).slice(0, -2),
    'two keys': `{"plaintext": "${decrypted.plaintext}", ${JSON.stringify(decrypted).slice(1)}`,
  };
  for (const [what, body] of Object.entries(badDecrypted)) {
    test(`unwrap: ${what}`, async () => {
      await using it = await against(() => answer(200, body));
      await assert.rejects(it.kek.unwrap(wrapped, CONTEXT), code('ERR_KMS_ANSWER'));
    });
  }

  test('status: another key, another key as primary', async () => {
    for (const body of [
      { name: `${KEY}2`, purpose: 'ENCRYPT_DECRYPT' },
      {
        name: KEY,
        purpose: 'ENCRYPT_DECRYPT',
        primary: { name: `${KEY}2/cryptoKeyVersions/1`, state: 'ENABLED' },
      },
      { name: KEY, purpose: 'ENCRYPT_DECRYPT', primary: { name: VERSION, state: `ENABLED\n${TOKEN}` } },
    ]) {
      await using it = await against(() => answer(200, body));
      await assert.rejects(it.kek.status(), code('ERR_KMS_ANSWER'));
    }
  });

  test('status: a key without a primary version is not enabled', async () => {
    await using it = await against(() => answer(200, { name: KEY, purpose: 'ENCRYPT_DECRYPT' }));
    assert.equal((await it.kek.status()).enabled, false);
  });

  test('refusals, with what we sent in their messages', async () => {
    const cases: readonly [number, string, string, string][] = [
      [400, 'INVALID_ARGUMENT', 'ERR_KMS_ANSWER', 'ERR_KMS_UNWRAP'],
      [400, 'FAILED_PRECONDITION', 'ERR_KMS_KEY_DISABLED', 'ERR_KMS_KEY_DISABLED'],
      [400, 'OUT_OF_RANGE', 'ERR_KMS_ANSWER', 'ERR_KMS_ANSWER'],
      [401, 'UNAUTHENTICATED', 'ERR_KMS_CREDENTIALS', 'ERR_KMS_CREDENTIALS'],
      [403, 'PERMISSION_DENIED', 'ERR_KMS_DENIED', 'ERR_KMS_DENIED'],
      [404, 'NOT_FOUND', 'ERR_KMS_KEY_NOT_FOUND', 'ERR_KMS_KEY_NOT_FOUND'],
      [408, 'DEADLINE_EXCEEDED', 'ERR_KMS_UNAVAILABLE', 'ERR_KMS_UNAVAILABLE'],
      [418, 'TEAPOT', 'ERR_KMS_ANSWER', 'ERR_KMS_ANSWER'],
      [429, 'RESOURCE_EXHAUSTED', 'ERR_KMS_THROTTLED', 'ERR_KMS_THROTTLED'],
      [500, 'INTERNAL', 'ERR_KMS_UNAVAILABLE', 'ERR_KMS_UNAVAILABLE'],
      [504, 'DEADLINE_EXCEEDED', 'ERR_KMS_UNAVAILABLE', 'ERR_KMS_UNAVAILABLE'],
    ];
    for (const [status, name, onWrap, onUnwrap] of cases) {
      await using it = await against(({ headers, body }) =>
        refusal(status, name, `${headers.authorization} ${body} ${toBase64(secret)}`),
      );
      await assert.rejects(it.kek.wrap(secret, CONTEXT), code(onWrap), `${status}`);
      await assert.rejects(it.kek.unwrap(wrapped, CONTEXT), code(onUnwrap), `${status}`);
    }
  });

  test('a 400 that is not of Google does not say that the bytes are bad', async () => {
    await using it = await against(() => answer(400, '<html>bad gateway</html>'));
    await assert.rejects(it.kek.unwrap(wrapped, CONTEXT), code('ERR_KMS_ANSWER'));
  });

  test('a redirect is not followed', async () => {
    await using elsewhere = await hostileGoogle(() => answer(200, encrypted));
    await using it = await against(({ path }) => answer(307, '', { location: elsewhere.endpoint + path }));
    await assert.rejects(it.kek.wrap(secret, CONTEXT), code('ERR_KMS_ANSWER'));
    assert.deepEqual(elsewhere.requests, []);
  });

  test('a giant answer is cut off', async () => {
    const block = 'x'.repeat(1 << 16);
    await using it = await against(() => (response) => {
      response.writeHead(200);
      const write = () => {
        while (response.writable && response.write(block)) {}
      };
      response.on('drain', write).on('error', () => {});
      write();
    });
    await assert.rejects(it.kek.wrap(secret, CONTEXT), code('ERR_KMS_ANSWER'));
  });

  test('a server that hangs, before or in its answer', async () => {
    await using silent = await against(() => () => {}, { timeoutMs: 300 });
    await assert.rejects(silent.kek.wrap(secret, CONTEXT), code('ERR_KMS_UNAVAILABLE'));
    await using half = await against(() => (response) => response.writeHead(200).write('{'), {
      timeoutMs: 300,
    });
    await assert.rejects(half.kek.wrap(secret, CONTEXT), code('ERR_KMS_UNAVAILABLE'));
  });

  test('a certificate that ran out, of another host, of a client or of another authority gets no request', async () => {
    await using tokens = await hostileGoogle(() => answer(200, encrypted));
    const [ca, other] = [await testCa(), await testCa('another')];
    const server = { name: 'localhost', usage: 'server', addresses: ['127.0.0.1'] } as const;
    for (const [pair, trusted] of [
      [await ca.issue(server), true],
      [await ca.issue({ ...server, expired: true }), false],
      [await ca.issue({ ...server, addresses: ['127.0.0.2'] }), false],
      [await ca.issue({ ...server, usage: 'client' }), false],
      [await other.issue(server), false],
    ] as const) {
      await using it = await scriptedHttp(() => answer(200, encrypted), pair);
      const kek = await open({
        parameters: { ...parameters, endpoint: it.endpoint },
        credentials: { serviceAccountKey: tokens.serviceAccountKey, caCertificate: ca.pem },
      });
      const wrapping = kek.wrap(secret, CONTEXT);
      if (trusted) assert.equal((await wrapping).keyId, VERSION);
      else await assert.rejects(wrapping, code('ERR_KMS_ANSWER'));
      assert.equal(it.requests.length, trusted ? 1 : 0);
      await kek.close();
    }
  });

  test('a connection that breaks is tried again', async () => {
    let broken = 0;
    await using it = await against(() =>
      broken++ < 2 ? (response) => response.destroy() : answer(200, encrypted),
    );
    assert.equal((await it.kek.wrap(secret, CONTEXT)).keyId, VERSION);
    assert.equal(it.server.calls().length, 3);
  });

  test('a signal ends a call that hangs, and the waiting between tries', async () => {
    for (const script of [() => () => {}, () => answer(429, '', { 'retry-after': '5' })]) {
      await using it = await against(script);
      const controller = new AbortController();
      const call = it.kek.wrap(secret, CONTEXT, controller.signal);
      setTimeout(() => controller.abort(new Error('enough')), 200);
      await assert.rejects(call, /enough/);
    }
  });
});

describe('settings of Google Cloud KMS', () => {
  test('endpoints in the clear, and without credentials of their own, are refused before anything is sent', async () => {
    await using server = await hostileGoogle(() => answer(200, encrypted));
    process.env.GOOGLE_APPLICATION_CREDENTIALS = '/nowhere/key.json';
    try {
      const at = (endpoint: string, credentials: Record<string, string>) =>
        open({ parameters: { ...parameters, endpoint }, credentials });
      const key = { serviceAccountKey: server.serviceAccountKey };
      await assert.rejects(at('http://kms.internal', key), code('ERR_KMS_SETTINGS'));
      await assert.rejects(at('http://127.0.0.1.example.com', key), code('ERR_KMS_SETTINGS'));
      await assert.rejects(at(server.endpoint, {}), code('ERR_KMS_SETTINGS'));
      const withFile = { ...parameters, endpoint: server.endpoint, credentialsPath: '/nowhere/key.json' };
      await assert.rejects(open({ parameters: withFile, credentials: {} }), code('ERR_KMS_SETTINGS'));
      assert.deepEqual(server.requests, []);
    } finally {
      delete process.env.GOOGLE_APPLICATION_CREDENTIALS;
    }
  });

  test('a certificate without an endpoint, or one that is none', async () => {
    const key = { serviceAccountKey: serviceAccountKey({}) };
    const pem = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
    await assert.rejects(
      open({ parameters, credentials: { ...key, caCertificate: pem } }),
      code('ERR_KMS_SETTINGS'),
    );
    const own = { ...parameters, endpoint: 'https://127.0.0.1:1' };
    await assert.rejects(
      open({ parameters: own, credentials: { ...key, caCertificate: pem } }),
      code('ERR_KMS_SETTINGS'),
    );
  });
});
