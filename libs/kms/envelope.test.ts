import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import { test } from 'node:test';
import { fromHex, toBase64, toHex, toUtf8 } from '@asterism/bytes/encoding';
import fc from 'fast-check';
import {
  associatedData,
  type Binding,
  type Envelope,
  openDek,
  parseEnvelope,
  renderEnvelope,
  sealDek,
} from './envelope.ts';
import { MemoryKek } from './memory.fixture.ts';

const binding: Binding = {
  dekId: 'key-test',
  clusterId: '00112233445566778899aabbccddeeff'.repeat(2),
  generation: 3,
};
const bytes = (length: number, value: number) => new Uint8Array(length).fill(value);
const copy = (envelope: Envelope): Envelope => ({
  ...envelope,
  ciphertext: Uint8Array.from(envelope.ciphertext),
  iv: Uint8Array.from(envelope.iv),
  wrapped: { ...envelope.wrapped, wrappedKey: Uint8Array.from(envelope.wrapped.wrappedKey) },
});

// The vector of the README, made here without the code under test.
const AAD =
  '0000000b617374657269736d2f7631' +
  '0000002000112233445566778899aabbccddeeff00112233445566778899aabbccddeeff' +
  '000000086b65792d74657374' +
  '0000000400000003';
const VECTOR = {
  envelopeKey: bytes(32, 0x11),
  iv: bytes(12, 0x22),
  dek: bytes(32, 0x33),
};

test('the associated data and the ciphertext of the vector', async () => {
  assert.equal(toHex(associatedData(binding)), AAD);
  const cipher = createCipheriv('aes-256-gcm', VECTOR.envelopeKey, VECTOR.iv).setAAD(fromHex(AAD));
  const ciphertext = Buffer.concat([cipher.update(VECTOR.dek), cipher.final(), cipher.getAuthTag()]);
  assert.equal(
    toHex(ciphertext),
    '24c4347af3fcac6cd60ced0f7b95dae62ca0fed159b29f78617c39db3ad25630408b72d85e2a02f3920e2fcf21de8f91',
  );
  const kek = new MemoryKek('kek');
  const context = `asterism/v1 cluster=${binding.clusterId} dek=key-test generation=3`;
  const wrapped = await kek.wrap(VECTOR.envelopeKey, context);
  const envelope = { binding, ciphertext, iv: VECTOR.iv, wrapped };
  assert.deepEqual(await openDek(kek, parseEnvelope(renderEnvelope(envelope)), binding), VECTOR.dek);
});

test('its JSON is that of the README', async () => {
  const wrapped = { mechanism: 1, keyId: 'kek', wrappedKey: bytes(3, 1) };
  const text = new TextDecoder().decode(
    renderEnvelope({ binding, ciphertext: bytes(48, 1), iv: bytes(12, 2), wrapped }),
  );
  assert.equal(
    text,
    `{"version":"asterism/v1","dek_id":"key-test","cluster_id":"${binding.clusterId}","generation":3,` +
      `"ciphertext":"${toBase64(bytes(48, 1))}","iv":"AgICAgICAgICAgIC","key_info":{"mechanism":1,"key_id":"kek","wrapped_key":"AQEB"}}`,
  );
});

test('keys of 1 to 96 bytes are sealed and opened, and each envelope is another', async () => {
  const kek = new MemoryKek('kek');
  for (const length of [1, 32, 64, 96]) {
    const dek = bytes(length, 7);
    const [one, two] = [await sealDek(kek, binding, dek), await sealDek(kek, binding, dek)];
    assert.notDeepEqual(one.ciphertext, two.ciphertext);
    assert.notDeepEqual(one.iv, two.iv);
    assert.deepEqual(await openDek(kek, parseEnvelope(renderEnvelope(one)), binding), dek);
  }
});

test('what says that it is another key is refused before the KMS is asked', async () => {
  const kek = new MemoryKek('kek');
  const envelope = await sealDek(kek, binding, bytes(32, 7));
  const { calls } = kek;
  for (const [wanted, code] of [
    [{ ...binding, dekId: 'key-other' }, 'ERR_ENVELOPE_ID'],
    [{ ...binding, clusterId: 'ff'.repeat(32) }, 'ERR_ENVELOPE_CLUSTER'],
    [{ ...binding, generation: 2 }, 'ERR_ENVELOPE_GENERATION'],
    [{ ...binding, generation: 4 }, 'ERR_ENVELOPE_GENERATION'],
  ] as const)
    await assert.rejects(openDek(kek, envelope, wanted), { name: 'VerificationError', code });
  assert.equal(kek.calls, calls);
});

/** A KMS that takes no context, as PKCS#11 and some KMIP servers: only the envelope itself binds. */
class LaxKek extends MemoryKek {
  override wrap(key: Uint8Array, _context: string, signal?: AbortSignal) {
    return super.wrap(key, 'none', signal);
  }
  override unwrap(wrapped: Envelope['wrapped'], _context: string | undefined, signal?: AbortSignal) {
    return super.unwrap(wrapped, 'none', signal);
  }
}

test('whatever is changed in it is found out, also where the KMS binds nothing', async () => {
  const kek = new LaxKek('kek');
  const envelope = await sealDek(kek, binding, bytes(32, 7));
  const forged = { name: 'VerificationError', code: 'ERR_ENVELOPE_FORGED' };
  for (const other of [
    { ...binding, dekId: 'key-tes' },
    { ...binding, clusterId: 'ff'.repeat(32) },
    { ...binding, generation: 4 },
  ])
    await assert.rejects(openDek(kek, { ...envelope, binding: other }, other), forged);
  // Nor can what has a binding be passed off as what v2.6 wrote.
  await assert.rejects(openDek(kek, { ...envelope, binding: undefined }, binding), forged);
  for (const part of ['ciphertext', 'iv'] as const) {
    for (let at = 0; at < envelope[part].length; at++) {
      const changed = copy(envelope);
      changed[part][at]! ^= 0x80;
      await assert.rejects(openDek(kek, changed, binding), forged);
    }
  }
  for (const length of [17, 47])
    await assert.rejects(
      openDek(kek, { ...envelope, ciphertext: envelope.ciphertext.slice(0, length) }, binding),
      forged,
    );
  const swapped = await sealDek(kek, binding, bytes(32, 8));
  await assert.rejects(openDek(kek, { ...envelope, wrapped: swapped.wrapped }, binding), forged);
});

test('a KMS that unwraps something else', async () => {
  const kek = new MemoryKek('kek');
  const envelope = await sealDek(kek, binding, bytes(32, 7));
  kek.unwrap = async () => bytes(16, 1);
  await assert.rejects(openDek(kek, envelope, binding), { code: 'ERR_KMS_ANSWER' });
  kek.unwrap = async () => bytes(32, 1);
  await assert.rejects(openDek(kek, envelope, binding), { code: 'ERR_ENVELOPE_FORGED' });
});

test('the envelope key is zeroed, whatever comes', async () => {
  const seen: Uint8Array[] = [];
  const kek = new MemoryKek('kek');
  const wrap = kek.wrap.bind(kek);
  kek.wrap = (key, context) => {
    seen.push(key);
    return wrap(key, context);
  };
  const unwrap = kek.unwrap.bind(kek);
  kek.unwrap = async (...args) => {
    const key = await unwrap(...args);
    seen.push(key);
    return key;
  };
  const envelope = await sealDek(kek, binding, bytes(32, 7));
  await openDek(kek, envelope, binding);
  await assert.rejects(openDek(kek, { ...envelope, iv: bytes(12, 0) }, binding));
  assert.equal(seen.length, 3);
  for (const key of seen) assert.deepEqual(key, bytes(32, 0));
});

test('what is rendered is parsed as it was', () => {
  const array = (minLength: number, maxLength = minLength) => fc.uint8Array({ minLength, maxLength });
  const envelopes = fc.record(
    {
      binding: fc.option(
        fc.record(
          {
            dekId: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/),
            clusterId: fc.stringMatching(/^[0-9a-f]{64}$/),
            generation: fc.integer({ min: 1, max: 999_999_999 }),
          },
          { noNullPrototype: true },
        ),
        { nil: undefined },
      ),
      ciphertext: array(17, 112),
      iv: array(12),
      wrapped: fc.record(
        {
          mechanism: fc.nat(),
          keyId: fc
            .string({ minLength: 1, maxLength: 2048, unit: 'grapheme' })
            .filter((id) => id.length <= 2048),
          wrappedKey: array(1, 8192),
        },
        { noNullPrototype: true },
      ),
    },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(envelopes, (envelope) => assert.deepEqual(parseEnvelope(renderEnvelope(envelope)), envelope)),
    { numRuns: 300 },
  );
});

/** As v2.6 wrote it (wire-facts 4.2): mechanism is left out where it is 0. */
const v26 = (info: object = {}) => ({
  ciphertext: toBase64(bytes(48, 1)),
  iv: toBase64(bytes(12, 2)),
  key_info: { mechanism: 1, key_id: 'arn', wrapped_key: toBase64(bytes(40, 3)), ...info },
});
const bound = (change: object = {}) => ({
  version: 'asterism/v1',
  dek_id: 'key-test',
  cluster_id: binding.clusterId,
  generation: 3,
  ...v26(),
  ...change,
});

test('what v2.6 wrote is parsed, and has no binding', () => {
  const parsed = parseEnvelope(toUtf8(JSON.stringify(v26())));
  assert.equal(parsed.binding, undefined);
  assert.equal(parsed.wrapped.mechanism, 1);
  const { mechanism: _, ...without } = v26().key_info;
  const text = JSON.stringify({ ...v26(), key_info: without });
  assert.equal(parseEnvelope(toUtf8(text)).wrapped.mechanism, 0);
});

for (const [what, value] of [
  ['nothing', ''],
  ['no JSON', '{'],
  ['no UTF-8', fromHex('7bff7d')],
  ['a list', []],
  ['null', null],
  ['a fragment of one', { version: 'asterism/v1' }],
  ['a newer version', bound({ version: 'asterism/v2' })],
  ['a version that is no text', bound({ version: null })],
  ['a field of unknown name', bound({ extra: 1 })],
  ['a field of unknown name in key_info', v26({ extra: 1 })],
  ['v2.6 with half a binding', { ...v26(), dek_id: 'key-test' }],
  ['an id that is a path', bound({ dek_id: '../x' })],
  ['a cluster id in capitals', bound({ cluster_id: 'AA'.repeat(32) })],
  ['generation 0', bound({ generation: 0 })],
  ['a generation and a half', bound({ generation: 1.5 })],
  ['a generation as text', bound({ generation: '3' })],
  ['a generation beyond bounds', bound({ generation: 2 ** 31 })],
  ['no ciphertext', bound({ ciphertext: '' })],
  ['a ciphertext of no key', bound({ ciphertext: toBase64(bytes(16, 1)) })],
  ['a ciphertext that is too long', bound({ ciphertext: toBase64(bytes(113, 1)) })],
  ['URL-safe base64', bound({ iv: '____AgICAgICAgIC' })],
  ['a short IV', bound({ iv: toBase64(bytes(11, 1)) })],
  ['a wrapped key that is too long', v26({ wrapped_key: toBase64(bytes(8193, 1)) })],
  ['an empty wrapped key', v26({ wrapped_key: '' })],
  ['an empty key id', v26({ key_id: '' })],
  ['a key id that is a number', v26({ key_id: 1 })],
  ['a negative mechanism', v26({ mechanism: -1 })],
  ['a mechanism beyond bounds', v26({ mechanism: 2 ** 60 })],
  ['key_info that is a list', bound({ key_info: [] })],
  ['one field twice', JSON.stringify(bound()).replace('{', '{"generation":2,')],
  ['64 KiB and a byte', ' '.repeat(64 * 1024 + 1)],
] as const) {
  test(`not a wrapped key: ${what}`, () => {
    const given =
      value instanceof Uint8Array ? value : toUtf8(typeof value === 'string' ? value : JSON.stringify(value));
    assert.throws(() => parseEnvelope(given), { name: 'ParseError', code: 'ERR_ENVELOPE' });
  });
}

test('none of its beginnings is one', () => {
  const whole = toUtf8(JSON.stringify(bound()));
  for (let length = 0; length < whole.length; length++)
    assert.throws(() => parseEnvelope(whole.subarray(0, length)), { code: 'ERR_ENVELOPE' });
});
