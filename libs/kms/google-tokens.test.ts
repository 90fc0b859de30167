import assert from 'node:assert/strict';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ParseError } from '@asterism/errors/errors';
import { scriptedHttp } from '@asterism/testkit/scripted-http';
import fc from 'fast-check';
import { answer, hostileGoogle, printed, serviceAccountKey, TOKEN } from './google.fixture.ts';
import { parseTokenAnswer, serviceAccountTokens } from './google-account-tokens.ts';
import { machineTokens } from './google-machine-tokens.ts';
import { parseServiceAccountKey } from './google-service-account.ts';

const options = {
  service: 'KMS',
  scope: 'https://www.googleapis.com/auth/cloudkms',
  timeoutMs: 2000,
  projectId: 'project',
} as const;

const code = (expected: string) => (error: unknown) => {
  assert.doesNotMatch(printed(error), /ya29|PRIVATE KEY|eyJ/);
  assert.equal((error as { code?: string }).code, expected);
  return true;
};

describe('a service account key', () => {
  test('what is none, or would ask for tokens in the clear, is refused', () => {
    const bad: (string | Record<string, unknown>)[] = [
      '',
      '[]',
      'null',
      '{"type": "service_account"',
      { type: 'authorized_user' },
      { client_email: '' },
      { private_key: 'secret' },
      { token_uri: undefined },
      { token_uri: 'http://oauth2.googleapis.com/token' },
      { token_uri: 'http://127.0.0.1.example.com/token' },
      { token_uri: 'http://127.0.0.1@example.com/token' },
      { token_uri: 'https://user:password@example.com/token' },
      { token_uri: 'ftp://127.0.0.1/token' },
      { private_key_id: 'x'.repeat(20_000) },
    ];
    for (const change of bad) {
      const text = typeof change === 'string' ? change : serviceAccountKey(change);
      assert.throws(() => parseServiceAccountKey(text), ParseError, text.slice(0, 60));
      assert.throws(() => serviceAccountTokens(text, options), code('ERR_KMS_CREDENTIALS'));
    }
    for (const uri of [
      'https://tokens.internal/x',
      'http://127.0.0.1:8080/token',
      'http://[::1]/t',
      'http://localhost/t',
    ])
      assert.equal(parseServiceAccountKey(serviceAccountKey({ token_uri: uri })).tokenUri, uri);
  });

  test('a private key that is no RSA key, or damaged, is refused without a word of it', () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const damaged = randomBytes(64).toString('base64');
    for (const pem of [
      privateKey.export({ type: 'pkcs8', format: 'pem' }),
      `-----BEGIN PRIVATE KEY-----\n${damaged}\n-----END PRIVATE KEY-----\n`,
    ])
      assert.throws(
        () => serviceAccountTokens(serviceAccountKey({ private_key: pem }), options),
        (error) => code('ERR_KMS_CREDENTIALS')(error) && !printed(error).includes(damaged),
      );
  });

  test('any text is parsed or is a ParseError', () => {
    const field = fc.oneof(fc.string(), fc.webUrl(), fc.constant(undefined), fc.integer());
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom('type', 'token_uri', 'client_email', 'private_key'), field),
        (change) => {
          try {
            parseServiceAccountKey(serviceAccountKey(change));
          } catch (error) {
            assert.ok(error instanceof ParseError);
          }
        },
      ),
    );
  });
});

describe('a token endpoint that lies', () => {
  const bad: Record<string, [number, unknown]> = {
    'no token': [200, { token_type: 'Bearer', expires_in: 3600 }],
    'a token that would be two header lines': [
      200,
      { access_token: 'a\r\nb: c', token_type: 'Bearer', expires_in: 1 },
    ],
    'a token of another type': [200, { access_token: TOKEN, token_type: 'mac', expires_in: 3600 }],
    'a token for ever': [200, { access_token: TOKEN, token_type: 'Bearer', expires_in: 1e9 }],
    'a token without end': [200, { access_token: TOKEN, token_type: 'Bearer' }],
    'no JSON': [200, `${TOKEN}`],
  };
  for (const [what, [status, body]] of Object.entries(bad)) {
    test(what, async () => {
      await using server = await hostileGoogle(
        () => answer(500, ''),
        () => answer(status, body),
      );
      const tokens = serviceAccountTokens(server.serviceAccountKey, options);
      await assert.rejects(tokens.get(), code('ERR_KMS_ANSWER'));
    });
  }

  test('refusals, with the assertion in their messages', async () => {
    for (const [status, expected] of [
      [400, 'ERR_KMS_CREDENTIALS'],
      [401, 'ERR_KMS_CREDENTIALS'],
      [403, 'ERR_KMS_CREDENTIALS'],
      [302, 'ERR_KMS_CREDENTIALS'],
      [429, 'ERR_KMS_THROTTLED'],
      [500, 'ERR_KMS_UNAVAILABLE'],
    ] as const) {
      await using server = await hostileGoogle(
        () => answer(500, ''),
        ({ body }) => answer(status, { error: `invalid_grant ${body}`, error_description: String(body) }),
      );
      const tokens = serviceAccountTokens(server.serviceAccountKey, options);
      await assert.rejects(tokens.get(), code(expected));
    }
  });

  test('one that hangs is not waited for; whoever leaves does not end the request for others', async () => {
    let reply = () => {};
    await using server = await hostileGoogle(
      () => answer(500, ''),
      () => (response) => {
        reply = () =>
          response.end(JSON.stringify({ access_token: TOKEN, expires_in: 3600, token_type: 'Bearer' }));
      },
    );
    const slow = serviceAccountTokens(server.serviceAccountKey, { ...options, timeoutMs: 200 });
    await assert.rejects(slow.get(), code('ERR_KMS_UNAVAILABLE'));

    const tokens = serviceAccountTokens(server.serviceAccountKey, options);
    const leaving = new AbortController();
    const [left, stays] = [tokens.get(leaving.signal), tokens.get()];
    leaving.abort(new Error('gone'));
    await assert.rejects(left, /gone/);
    while (server.requests.length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
    reply();
    assert.equal(await stays, TOKEN);
    assert.equal(server.requests.length, 2);
  });

  test('the assertion is made out to this endpoint alone, and short-lived', async () => {
    await using server = await hostileGoogle(() => answer(500, ''));
    await serviceAccountTokens(server.serviceAccountKey, options).get();
    const assertion = new URLSearchParams(String(server.requests[0]?.body)).get('assertion') ?? '';
    const [header, claims] = assertion
      .split('.')
      .slice(0, 2)
      .map((part) => JSON.parse(String(Buffer.from(part, 'base64url'))));
    assert.deepEqual(header, { alg: 'RS256', typ: 'JWT', kid: 'f00d' });
    assert.equal(claims.aud, `${server.endpoint}/token`);
    assert.equal(claims.scope, options.scope);
    assert.equal(claims.exp - claims.iat, 600);
  });

  test('any answer is a token or a ParseError', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        try {
          assert.match(parseTokenAnswer(text).token, /^[\x21-\x7e]+$/);
        } catch (error) {
          assert.ok(error instanceof ParseError);
        }
      }),
    );
  });
});

describe('what the machine offers', () => {
  const names = ['GCE_METADATA_HOST', 'GOOGLE_APPLICATION_CREDENTIALS', 'HOME', 'CLOUDSDK_CONFIG'] as const;
  const kept = Object.fromEntries(names.map((name) => [name, process.env[name]]));
  after(() => {
    for (const name of names) {
      if (kept[name] === undefined) delete process.env[name];
      else process.env[name] = kept[name];
    }
  });

  test('the metadata server of an instance', async () => {
    let given = 0;
    await using server = await scriptedHttp(({ path, headers }) => {
      if (headers['metadata-flavor'] !== 'Google') return { status: 403 };
      const google = { 'metadata-flavor': 'Google', 'content-type': 'application/json' };
      if (!path.includes('/token')) return { status: 200, headers: google, body: 'default' };
      given++;
      return answer(
        200,
        { access_token: `${TOKEN}-${given}`, expires_in: 3600, token_type: 'Bearer' },
        google,
      );
    });
    process.env.GCE_METADATA_HOST = server.endpoint.replace('http://', '');
    process.env.CLOUDSDK_CONFIG = '/nowhere';
    const tokens = await machineTokens(options);
    assert.equal(await tokens.get(), `${TOKEN}-1`);
    assert.equal(await tokens.get(), `${TOKEN}-1`);
    tokens.forget(`${TOKEN}-1`);
    assert.equal(await tokens.get(), `${TOKEN}-2`);
  });

  test('workload identity federation: the token of a file is exchanged', async () => {
    await using sts = await scriptedHttp(({ body }) => {
      const form = new URLSearchParams(String(body));
      return form.get('subject_token') === 'of-the-machine'
        ? answer(
            200,
            {
              access_token: TOKEN,
              expires_in: 3600,
              token_type: 'Bearer',
              issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
            },
            { 'content-type': 'application/json' },
          )
        : answer(
            400,
            { error: 'invalid_grant', error_description: String(body) },
            { 'content-type': 'application/json' },
          );
    });
    const folder = await mkdtemp(join(tmpdir(), 'asterism-adc-'));
    try {
      const subject = join(folder, 'token');
      const file = join(folder, 'adc.json');
      await writeFile(subject, 'of-the-machine');
      await writeFile(
        file,
        JSON.stringify({
          type: 'external_account',
          audience:
            '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider',
          subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
          token_url: `${sts.endpoint}/v1/token`,
          credential_source: { file: subject },
        }),
      );
      process.env.GOOGLE_APPLICATION_CREDENTIALS = file;
      assert.equal(await (await machineTokens(options)).get(), TOKEN);
      await writeFile(subject, 'ya29.of-somebody-else');
      await assert.rejects((await machineTokens(options)).get(), code('ERR_KMS_CREDENTIALS'));
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('nothing, or what hangs', async () => {
    process.env.GOOGLE_APPLICATION_CREDENTIALS = '/nowhere/key.json';
    await assert.rejects((await machineTokens(options)).get(), code('ERR_KMS_CREDENTIALS'));
    delete process.env.GOOGLE_APPLICATION_CREDENTIALS;
    await using silent = await scriptedHttp(() => () => {});
    process.env.GCE_METADATA_HOST = silent.endpoint.replace('http://', '');
    await assert.rejects((await machineTokens({ ...options, timeoutMs: 300 })).get(), (error) =>
      code('ERR_KMS_UNAVAILABLE')(error),
    );
    const aborted = AbortSignal.abort(new Error('enough'));
    await assert.rejects((await machineTokens(options)).get(aborted), /enough/);
  });
});
