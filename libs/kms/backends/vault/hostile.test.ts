import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { toBase64 } from '@asterism/bytes/encoding';
import type { Kek } from '@asterism/kms/kek';
import { open } from './backend.ts';

const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';
const TOKEN = 's.theSecretTokenOfThisTest';
const GOOD_KEY = { data: { type: 'aes256-gcm96', latest_version: 1, min_decryption_version: 1 } };
const CIPHERTEXT = `vault:v1:${toBase64(new Uint8Array(60))}`;
const WRAPPED = { mechanism: 1, keyId: 'transit/kek:v1', wrappedKey: Buffer.from(CIPHERTEXT) };

type Handler = (request: IncomingMessage, response: ServerResponse, body: string) => void;

/** A KEK whose server is ours: it says what OpenBao never would. */
async function against(t: TestContext, handler: Handler): Promise<Kek> {
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => {
      body += chunk;
    });
    request.on('end', () => handler(request, response, body));
    request.on('error', () => {});
    response.on('error', () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const kek = await open(
    {
      parameters: { address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, keyName: 'kek' },
      credentials: { token: TOKEN },
    },
    { timeoutMs: 1000 },
  );
  t.after(async () => {
    await kek.close();
    server.closeAllConnections();
    server.close();
  });
  return kek;
}

const json = (response: ServerResponse, status: number, body: unknown, headers = {}) =>
  response.writeHead(status, headers).end(JSON.stringify(body));

test('answers that are no JSON, too large or of another form are refused', async (t) => {
  const key = (change: object) => JSON.stringify({ data: { ...GOOD_KEY.data, ...change } });
  for (const [text, code] of [
    ['', 'ERR_KMS_ANSWER'],
    ['<html>', 'ERR_KMS_ANSWER'],
    ['[]', 'ERR_KMS_ANSWER'],
    ['null', 'ERR_KMS_ANSWER'],
    ['{"data":null}', 'ERR_KMS_ANSWER'],
    [`${'['.repeat(10_000)}`, 'ERR_KMS_ANSWER'],
    [key({ latest_version: 'x' }), 'ERR_KMS_ANSWER'],
    [key({ type: 'a\u001b[31m' }), 'ERR_KMS_SETTINGS'],
    [`{"data":{"type":"aes256-gcm96","type":"rsa-2048","latest_version":1}}`, 'ERR_KMS_ANSWER'],
    [`{"pad":"${'x'.repeat(300_000)}"}`, 'ERR_KMS_UNAVAILABLE'],
  ] as const) {
    const kek = await against(t, (_, response) => response.end(text));
    await assert.rejects(
      kek.status(),
      (error: Error & { code?: string }) => {
        assert.equal(error.code, code, text.slice(0, 60));
        assert.ok(!error.message.includes('\u001b'));
        return true;
      },
      text.slice(0, 60),
    );
  }
});

test('what is wrapped or unwrapped must make sense', async (t) => {
  for (const data of [
    {},
    { ciphertext: 'vault:v1:AAAA' },
    { ciphertext: CIPHERTEXT.replace('v1', 'v0') },
    { ciphertext: 7 },
    { plaintext: 'AAAA' },
    { plaintext: '!!!!' },
    { plaintext: toBase64(new Uint8Array(31)) },
    { plaintext: toBase64(new Uint8Array(33)) },
  ]) {
    const kek = await against(t, (request, response) =>
      json(response, 200, request.method === 'GET' ? GOOD_KEY : { data }),
    );
    await assert.rejects(kek.wrap(randomBytes(32), CONTEXT), { code: 'ERR_KMS_ANSWER' });
    await assert.rejects(kek.unwrap(WRAPPED, CONTEXT), { code: 'ERR_KMS_ANSWER' });
  }
});

test('a server that hangs, drips or breaks off is given up in time', async (t) => {
  const unavailable = { name: 'KmsUnavailableError', code: 'ERR_KMS_UNAVAILABLE' };
  for (const [name, handler] of Object.entries<Handler>({
    'no answer': () => {},
    'no body': (_, response) => response.writeHead(200, { 'content-length': '10' }).flushHeaders(),
    'a drip': (_, response) => {
      const timer = setInterval(() => response.write(' '), 100);
      response.on('close', () => clearInterval(timer));
    },
    'broken off': (_, response) => {
      response.writeHead(200, { 'content-length': '100' });
      response.write('{"data"', () => response.destroy());
    },
    reset: (request) => request.socket.destroy(),
  })) {
    const kek = await against(t, handler);
    await assert.rejects(kek.unwrap(WRAPPED, CONTEXT), unavailable, name);
  }
});

test('429 and 503 are tried again a bounded number of times, and a long Retry-After is handed on', async (t) => {
  let asked = 0;
  const kek = await against(t, (_, response) => {
    asked++;
    json(response, asked % 2 ? 429 : 503, { errors: [] });
  });
  await assert.rejects(kek.status(), { name: 'KmsUnavailableError' });
  assert.equal(asked, 3);

  let refusals = 2;
  const recovering = await against(t, (_, response) =>
    refusals-- > 0 ? json(response, 503, {}) : json(response, 200, GOOD_KEY),
  );
  assert.equal((await recovering.status()).enabled, true);

  const busy = await against(t, (_, response) => json(response, 429, {}, { 'retry-after': '30' }));
  await assert.rejects(busy.status(), { code: 'ERR_KMS_THROTTLED', retryAfterMs: 30_000 });
});

test('a redirect is not followed: the token would go with it', async (t) => {
  let elsewhere = 0;
  const thief = createServer((_, response) => {
    elsewhere++;
    response.end('{}');
  });
  await new Promise<void>((resolve) => thief.listen(0, '127.0.0.1', resolve));
  t.after(() => thief.close());
  const location = `http://127.0.0.1:${(thief.address() as AddressInfo).port}/v1/transit/keys/kek`;
  const kek = await against(t, (_, response) => json(response, 307, {}, { location }));
  await assert.rejects(kek.status(), { code: 'ERR_KMS_ANSWER', message: /elsewhere/ });
  assert.equal(elsewhere, 0);
});

test('a server that repeats credentials and keys does not get them into an error', async (t) => {
  const key = randomBytes(32);
  for (const status of [400, 403, 404, 418, 429, 500]) {
    const kek = await against(t, (request, response, body) => {
      if (request.method === 'GET' && request.url === '/v1/transit/keys/kek')
        return json(response, 200, GOOD_KEY);
      const { plaintext } = JSON.parse(body || '{}');
      return json(response, status, { errors: [`${request.headers['x-vault-token']} sent ${plaintext}`] });
    });
    await assert.rejects(kek.wrap(key, CONTEXT), (error: Error) => {
      const shown = `${JSON.stringify(error)} ${error.stack} ${String((error.cause as Error)?.stack)}`;
      assert.ok(!shown.includes(TOKEN) && !shown.includes(key.toString('base64')), `${status}`);
      return true;
    });
  }
});

test('settings that cannot be meant are refused', async () => {
  const parameters = { address: 'https://bao.internal:8200', keyName: 'kek' };
  for (const [change, credentials] of [
    [{}, {}],
    [{}, { caCertificate: 'x' }],
    [{}, { roleID: 'x' }],
    [{}, { secretID: 'x' }],
    [{}, { token: 'x', roleID: 'x', secretID: 'x' }],
    [{ address: 'http://bao.internal:8200' }, { token: 'x' }],
    [{ address: 'http://127.0.0.1.example.com' }, { token: 'x' }],
    [{ address: 'nonsense' }, { token: 'x' }],
    [{ address: undefined }, { token: 'x' }],
    [{}, { token: 'a\r\nb: c' }],
  ])
    await assert.rejects(
      open({ parameters: { ...parameters, ...change }, credentials: { ...credentials } }),
      {
        code: 'ERR_KMS_SETTINGS',
      },
    );
});
