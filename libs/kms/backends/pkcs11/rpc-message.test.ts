import assert from 'node:assert/strict';
import { test } from 'node:test';
import { concat } from '@asterism/bytes/bytes';
import { fromHex, toHex } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { ATTRIBUTES, type AttributeName, type Attributes } from './cryptoki.ts';
import {
  encodeBody,
  encodeFrame,
  encodeRequest,
  FRAME_HEADER_BYTES,
  HANDSHAKE,
  parseBody,
  parseFrameHeader,
  parseResponse,
} from './rpc-message.ts';
import { ValueReader, ValueWriter } from './rpc-values.ts';

const attributes = fc
  .uniqueArray(fc.constantFrom(...(Object.keys(ATTRIBUTES) as AttributeName[])))
  .chain((names) =>
    fc.record(
      Object.fromEntries(
        names.map((name) => [
          name,
          {
            ulong: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
            bool: fc.boolean(),
            bytes: fc.uint8Array({ maxLength: 300 }),
          }[ATTRIBUTES[name].form] as fc.Arbitrary<unknown>,
        ]),
      ),
    ),
  ) as fc.Arbitrary<Attributes>;

test('what was written is read', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 255 }),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.uint8Array({ maxLength: 2000 }),
      fc.array(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { maxLength: 50 }),
      attributes,
      (byte, ulong, bytes, ulongs, given) => {
        const written = new ValueWriter()
          .byte(byte)
          .ulong(ulong)
          .bytes(bytes)
          .ulongs(ulongs)
          .attributes(given);
        const { id, signature, values } = parseBody(encodeBody(77, 'yuayauaA', written.finish('yuayauaA')));
        assert.equal(id, 77);
        assert.equal(signature, 'yuayauaA');
        assert.equal(values.byte(), byte);
        assert.equal(values.ulong(), ulong);
        assert.deepEqual(Uint8Array.from(values.bytes()), bytes);
        assert.deepEqual(values.ulongs(), ulongs);
        const read = values.attributes();
        values.end();
        assert.deepEqual({ ...read }, { ...given });
      },
    ),
  );
});

test('every truncation of an answer, and every byte too many, is refused', () => {
  const body = encodeBody(
    24,
    'aAu',
    new ValueWriter()
      .attributes({ CKA_KEY_TYPE: 0x1fn, CKA_SENSITIVE: true, CKA_ID: Uint8Array.of(1, 2) })
      .ulong(0n)
      .finish('aAu'),
  );
  const read = (bytes: Uint8Array) => {
    const response = parseResponse('C_GetAttributeValue', bytes);
    assert.ok('values' in response);
    response.values.attributes();
    response.values.ulong();
    response.values.end();
  };
  read(body);
  for (let length = 0; length < body.length; length++)
    assert.throws(() => read(body.subarray(0, length)), ParseError, `${length}`);
  assert.throws(() => read(concat(body, Uint8Array.of(0))), ParseError);
});

test('arbitrary bytes are refused by ParseError alone', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      for (const parse of [
        () => parseFrameHeader(bytes),
        () => parseResponse('C_GetSlotList', bytes),
        () => new ValueReader(bytes).attributes(),
        () => new ValueReader(bytes).ulongs(),
        () => new ValueReader(bytes).bytes(),
        () => new ValueReader(bytes).spaceString(32),
      ])
        try {
          parse();
        } catch (error) {
          assert.ok(error instanceof ParseError, String(error));
        }
    }),
  );
});

test('lengths that announce too much are refused before anything is read', () => {
  const header = (options: number, body: number) =>
    concat(
      fromHex('00000001'),
      fromHex(options.toString(16).padStart(8, '0')),
      fromHex(body.toString(16).padStart(8, '0')),
    );
  assert.deepEqual(parseFrameHeader(header(0, 65_536)), { code: 1, optionsBytes: 0, bodyBytes: 65_536 });
  for (const [options, body] of [
    [0, 65_537],
    [65_537, 0],
    [0xffffffff, 0],
    [0, 0xffffffff],
  ] as const)
    assert.throws(() => parseFrameHeader(header(options, body)), ParseError);
  assert.throws(() => new ValueReader(fromHex('01ffffffff')).bytes(), ParseError);
  assert.throws(() => new ValueReader(fromHex('01ffffffff')).ulongs(), ParseError);
  assert.throws(() => new ValueReader(fromHex('ffffffff')).attributes(), ParseError);
});

test('attributes: those that are not told are left out; doubles, strangers and wrong sizes are refused', () => {
  // CKA_ID and CKA_VALUE not told: no validity, and no array.
  assert.deepEqual(
    {
      ...new ValueReader(
        fromHex('00000002 00000102 00 00000011 01 00000000 ffffffff'.replaceAll(' ', '')),
      ).attributes(),
    },
    {},
  );
  for (const hex of [
    '00000002 00000103 01 00000001 01 00000103 01 00000001 01',
    '00000001 80000001 00',
    '00000001 00000103 01 00000001 02',
    '00000001 00000103 01 00000002 01',
    '00000001 00000100 01 00000003 000000000000001f',
    '00000001 00000102 01 00000001 00000002 0102',
  ])
    assert.throws(() => new ValueReader(fromHex(hex.replaceAll(' ', ''))).attributes(), ParseError, hex);
});

test('an answer to another call, or an error that is none, is refused', () => {
  const ok = encodeBody(10, 'u', new ValueWriter().ulong(5n).finish('u'));
  assert.ok('values' in parseResponse('C_OpenSession', ok));
  assert.throws(() => parseResponse('C_CreateObject', ok), ParseError);
  assert.throws(() => parseResponse('C_Login', ok), ParseError);
  const error = (value: bigint) => encodeBody(0, 'u', new ValueWriter().ulong(value).finish('u'));
  assert.deepEqual(parseResponse('C_Login', error(0xa0n)), { failed: 0xa0 });
  assert.deepEqual(parseResponse('C_Login', error(1n << 60n)), { failed: 0xffffffff });
  assert.throws(() => parseResponse('C_Login', error(0n)), ParseError);
});

test('a request is what p11-kit 0.24 reads', () => {
  const request = encodeRequest(1, 'C_Initialize', (out) =>
    out.bytes(HANDSHAKE).byte(0).bytes(Uint8Array.of(0)),
  );
  // Bytes that p11-kit 0.24.1 of Debian 12 took.
  assert.equal(
    toHex(request),
    [
      '00000001 00000000 00000042',
      '00000001 00000005 6179796179',
      '01 00000029 505249564154452d474e4f4d452d4b455952494e472d504b435331312d50524f544f434f4c2d562d31',
      '00 01 00000001 00',
    ]
      .join('')
      .replaceAll(' ', ''),
  );
  assert.throws(() => encodeRequest(1, 'C_Login', (out) => out.ulong(1n)), RangeError);
  assert.equal(encodeFrame(7, new Uint8Array(3)).length, FRAME_HEADER_BYTES + 3);
});
