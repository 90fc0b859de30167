import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { concat } from '@asterism/bytes/bytes';
import { Writer } from '@asterism/bytes/writer';
import type { Kek } from '@asterism/kms/kek';
import {
  type Answer,
  type Answers,
  answer,
  type FakeHsm,
  failure,
  fakeHsm,
  GOOD_KEY,
  tokenAnswer,
} from '@asterism/testkit/counterparts/fake-hsm';
import { testCa } from '@asterism/testkit/test-ca';
import { open } from './backend.ts';
import { CKR } from './cryptoki.ts';
import { CALLS, type CallName, encodeBody, encodeFrame } from './rpc-message.ts';

const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';
const PIN = 'secret-pin-4711';
const TIMEOUT_MS = 400;
const WRAPPED = { mechanism: 1, keyId: 'x', wrappedKey: new Uint8Array(72) };

async function kekAt(
  t: TestContext,
  { port, ca, client }: Pick<FakeHsm, 'port' | 'ca' | 'client'>,
): Promise<Kek> {
  const kek = await open(
    {
      parameters: { host: '127.0.0.1', port: String(port), tokenLabel: 'token', keyName: 'kek' },
      credentials: {
        clientCertificate: client.certificate,
        clientKey: client.key,
        caCertificate: ca.pem,
        pin: PIN,
      },
    },
    { timeoutMs: TIMEOUT_MS },
  );
  t.after(() => kek.close());
  return kek;
}

async function against(
  t: TestContext,
  answers: Answers,
  version?: Answer,
): Promise<{ hsm: FakeHsm; kek: Kek }> {
  const hsm = await fakeHsm(answers, version);
  t.after(() => hsm[Symbol.asyncDispose]());
  return { hsm, kek: await kekAt(t, hsm) };
}

const code = (error: unknown) => (error as { code?: string }).code;

test('the server of these tests is good until it is told otherwise', async (t) => {
  const { hsm, kek } = await against(t, {});
  assert.equal((await kek.status()).keyId, '0123456789abcdef/kek/01');
  assert.equal((await kek.wrap(randomBytes(32), CONTEXT)).wrappedKey.length, 72);
  await assert.rejects(
    kek.unwrap(WRAPPED, CONTEXT),
    { code: 'ERR_KMS_UNWRAP' },
    'zeros are bound to nothing',
  );
  assert.equal(hsm.connections, 1);
});

test('whatever call is answered with nonsense: an error in time, and no more is asked there', async (t) => {
  const frame = (name: CallName, number: number, values: Uint8Array) =>
    encodeFrame(number, encodeBody(CALLS[name].id, CALLS[name].response, values));
  const header = (number: number, options: number, body: number) =>
    new Writer().u32be(number).u32be(options).u32be(body).finish();
  const nonsense: Record<string, (name: CallName, number: number) => Answer> = {
    'arbitrary bytes': () => randomBytes(200),
    'a giant body': (_, number) => header(number, 0, 0xffffffff),
    'giant options': (_, number) => header(number, 0xffffffff, 0),
    'a body that does not come': (_, number) => header(number, 0, 1000),
    'half a header': () => new Uint8Array(5),
    'no answer': () => 'hang',
    closing: () => 'close',
    'the answer to another request': (name, number) => frame(name, number + 1, new Uint8Array(8)),
    'the answer to another call': (_, number) => encodeFrame(number, encodeBody(99, 'u', new Uint8Array(8))),
    'another signature': (name, number) =>
      encodeFrame(number, encodeBody(CALLS[name].id, 'yyy', new Uint8Array(3))),
    'values that are too long': (name, number) =>
      frame(name, number, concat(Uint8Array.of(1, 0xff, 0xff, 0xff, 0xff), new Uint8Array(50))),
    'an error that is none': (_, number) => failure(0, number),
    'a flood': () => new Uint8Array(400_000),
  };
  // Where a plaintext object cannot be removed, the session ends; what was wrapped is good all the same.
  const unaffected: readonly CallName[] = ['C_UnwrapKey', 'C_DestroyObject'];
  const calls = (Object.keys(CALLS) as CallName[]).filter((name) => !unaffected.includes(name));
  for (const [what, make] of Object.entries(nonsense))
    await Promise.all(
      calls.map(async (name) => {
        const { hsm, kek } = await against(t, { [name]: (number: number) => make(name, number) });
        await assert.rejects(kek.wrap(randomBytes(32), CONTEXT), (error: Error) => {
          assert.match(
            String(code(error)),
            /^ERR_KMS_(ANSWER|UNAVAILABLE)$/,
            `${what} for ${name}: ${error}`,
          );
          assert.ok(!`${JSON.stringify(error)}${error.stack}`.includes(PIN));
          return true;
        });
        assert.ok(hsm.connections <= 2);
      }),
    );
});

test('another version, or none, is refused', async (t) => {
  for (const [version, expected] of [
    [Uint8Array.of(1), 'ERR_KMS_ANSWER'],
    [new TextEncoder().encode('HTTP/1.1 400 Bad Request'), 'ERR_KMS_ANSWER'],
    ['hang', 'ERR_KMS_UNAVAILABLE'],
    ['close', 'ERR_KMS_UNAVAILABLE'],
  ] as const) {
    const { kek } = await against(t, {}, version);
    await assert.rejects(kek.status(), (error) => code(error) === expected);
  }
});

test('return values mean what they mean for the caller', async (t) => {
  for (const [name, value, expected] of [
    ['C_Login', CKR.PIN_INCORRECT, 'ERR_KMS_CREDENTIALS'],
    ['C_Login', CKR.PIN_LOCKED, 'ERR_KMS_CREDENTIALS'],
    ['C_Login', CKR.PIN_EXPIRED, 'ERR_KMS_CREDENTIALS'],
    ['C_Login', CKR.USER_PIN_NOT_INITIALIZED, 'ERR_KMS_CREDENTIALS'],
    ['C_Login', 0x80000123, 'ERR_KMS_ANSWER'],
    ['C_OpenSession', CKR.SESSION_COUNT, 'ERR_KMS_UNAVAILABLE'],
    ['C_OpenSession', CKR.DEVICE_REMOVED, 'ERR_KMS_UNAVAILABLE'],
    ['C_GetTokenInfo', CKR.TOKEN_NOT_PRESENT, 'ERR_KMS_KEY_NOT_FOUND'],
    ['C_GetAttributeValue', CKR.DEVICE_ERROR, 'ERR_KMS_UNAVAILABLE'],
    ['C_CreateObject', CKR.TEMPLATE_INCONSISTENT, 'ERR_KMS_DENIED'],
    ['C_CreateObject', CKR.GENERAL_ERROR, 'ERR_KMS_UNAVAILABLE'],
    ['C_WrapKey', CKR.MECHANISM_INVALID, 'ERR_KMS_SETTINGS'],
    ['C_WrapKey', CKR.KEY_FUNCTION_NOT_PERMITTED, 'ERR_KMS_DENIED'],
  ] as const) {
    const { kek } = await against(t, { [name]: (number: number) => failure(value, number) });
    await assert.rejects(kek.wrap(randomBytes(32), CONTEXT), (error) => {
      assert.equal(code(error), expected, `${name} 0x${value.toString(16)}`);
      return true;
    });
  }
  for (const value of [CKR.WRAPPED_KEY_INVALID, CKR.ENCRYPTED_DATA_INVALID, CKR.FUNCTION_FAILED]) {
    const { kek } = await against(t, { C_UnwrapKey: (number) => failure(value, number) });
    await assert.rejects(kek.unwrap(WRAPPED, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
  }
  const gone = await against(t, { C_UnwrapKey: (number) => failure(CKR.TOKEN_NOT_PRESENT, number) });
  await assert.rejects(gone.kek.unwrap(WRAPPED, CONTEXT), { code: 'ERR_KMS_UNAVAILABLE' });
});

test('a PIN that was refused, for whatever reason, is not sent a second time', async (t) => {
  for (const value of [CKR.PIN_INCORRECT, CKR.PIN_LOCKED, CKR.GENERAL_ERROR, 0x80000123]) {
    const { hsm, kek } = await against(t, { C_Login: (number) => failure(value, number) });
    for (let i = 0; i < 3; i++) await assert.rejects(kek.status(), { name: 'KmsError' });
    assert.equal(hsm.calls.filter((name) => name === 'C_Login').length, 1);
  }
});

test('a token whose PIN is locked, or has one try left, is not logged in to', async (t) => {
  for (const [flag, message] of [
    [0x40000n, /locked/],
    [0x20000n, /one try left/],
  ] as const) {
    const { hsm, kek } = await against(t, {
      C_GetTokenInfo: (number) => tokenAnswer(number, { flags: 0x404n | flag }),
    });
    await assert.rejects(kek.status(), { code: 'ERR_KMS_CREDENTIALS', message });
    assert.ok(!hsm.calls.includes('C_Login'));
  }
});

test('a key that does not wrap, and one that does not tell, are refused', async (t) => {
  for (const [name, change] of [
    ['CKA_WRAP', { CKA_WRAP: false }],
    ['CKA_UNWRAP', { CKA_UNWRAP: false }],
    ['CKA_EXTRACTABLE', { CKA_EXTRACTABLE: true }],
    ['CKA_SENSITIVE', { CKA_SENSITIVE: false }],
    ['256 bits', { CKA_VALUE_LEN: 16n }],
  ] as const) {
    const { kek } = await against(t, {
      C_GetAttributeValue: (number) =>
        answer('C_GetAttributeValue', number, (out) => out.attributes({ ...GOOD_KEY, ...change }).ulong(0n)),
    });
    await assert.rejects(kek.status(), { code: 'ERR_KMS_SETTINGS', message: new RegExp(name) });
  }
  const { kek } = await against(t, {
    C_GetAttributeValue: (number) =>
      answer('C_GetAttributeValue', number, (out) =>
        out.attributes({ CKA_KEY_TYPE: 0x1fn, CKA_VALUE_LEN: 32n }).ulong(BigInt(CKR.ATTRIBUTE_SENSITIVE)),
      ),
  });
  await assert.rejects(kek.status(), { code: 'ERR_KMS_SETTINGS' });
});

test('a session that is lost is opened again, once', async (t) => {
  const lost = await against(t, {
    C_CreateObject: (number, count) =>
      count === 1
        ? failure(CKR.SESSION_HANDLE_INVALID, number)
        : answer('C_CreateObject', number, (out) => out.ulong(20n)),
  });
  await lost.kek.wrap(randomBytes(32), CONTEXT);
  assert.equal(lost.hsm.connections, 2);
});

test('the plaintext object is removed when wrapping fails, or the session ends', async (t) => {
  const failing = await against(t, { C_WrapKey: (number) => failure(CKR.KEY_UNEXTRACTABLE, number) });
  await assert.rejects(failing.kek.wrap(randomBytes(32), CONTEXT), { code: 'ERR_KMS_DENIED' });
  assert.equal(failing.hsm.calls.at(-1), 'C_DestroyObject');

  const kept = await against(t, { C_DestroyObject: (number) => failure(CKR.ACTION_PROHIBITED, number) });
  await kept.kek.wrap(randomBytes(32), CONTEXT);
  await kept.kek.wrap(randomBytes(32), CONTEXT);
  assert.equal(kept.hsm.connections, 2);
});

test('what is wrapped or unwrapped to another length is refused', async (t) => {
  for (const length of [0, 32, 71, 80, 256]) {
    const { kek } = await against(t, {
      C_WrapKey: (number) => answer('C_WrapKey', number, (out) => out.bytes(new Uint8Array(length))),
    });
    await assert.rejects(kek.wrap(randomBytes(32), CONTEXT), { code: 'ERR_KMS_ANSWER' });
  }
  for (const value of [{}, { CKA_VALUE: new Uint8Array(32) }, { CKA_VALUE: new Uint8Array(72) }]) {
    const { kek } = await against(t, {
      C_GetAttributeValue: (number, count) =>
        answer('C_GetAttributeValue', number, (out) =>
          out.attributes(count === 1 ? GOOD_KEY : value).ulong(0n),
        ),
    });
    await assert.rejects(kek.unwrap(WRAPPED, CONTEXT), { code: 'ERR_KMS_ANSWER' });
  }
});

test('what is not TLS, and who cannot prove who it is, gets nothing of ours', async (t) => {
  const ca = await testCa();
  const client = await ca.issue({ name: 'asterism', usage: 'client' });
  const plain = createServer((socket) => {
    socket.on('error', () => {});
    socket.end('SSH-2.0-OpenSSH_9.2\r\n');
  });
  plain.listen(0, '127.0.0.1');
  await once(plain, 'listening');
  t.after(() => plain.close());
  const { port } = plain.address() as AddressInfo;
  await assert.rejects((await kekAt(t, { port, ca, client })).status(), { code: 'ERR_KMS_ANSWER' });

  const { hsm } = await against(t, {});
  await assert.rejects((await kekAt(t, { ...hsm, ca })).status(), { code: 'ERR_KMS_ANSWER' });
  assert.deepEqual(hsm.calls, []);
});
