import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ParseError } from '@asterism/errors/errors';
import { bytes, enumeration, integer, structure, text } from './items.ts';
import { decodeAnswer, encodeRequest, type Request } from './messages.ts';
import { decryptGcm, discoverVersions, encryptGcm, getAttributes, locate } from './operations.ts';
import { OPERATION, REASON, STATUS, TAG } from './tags.ts';
import { decodeTtlv, encodeTtlv, type Item, type Structure } from './ttlv.ts';

const id = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
const request: Request = { version: '1.4', operation: 'encrypt', id, payload: [] };

interface Parts {
  readonly version?: readonly [number, number];
  readonly count?: number;
  readonly items?: number;
  readonly operation?: number | null;
  readonly id?: Uint8Array | null;
  readonly status?: number;
  readonly payload?: Item | null;
  readonly more?: readonly Item[];
}

function answer(parts: Parts = {}): Structure {
  const {
    version = [1, 4],
    count = 1,
    items = 1,
    operation = OPERATION.encrypt,
    status = 0,
    more = [],
  } = parts;
  const itsId = parts.id === undefined ? id : parts.id;
  const payload = parts.payload === undefined ? structure(TAG.responsePayload) : parts.payload;
  const item = structure(
    TAG.batchItem,
    operation === null ? undefined : enumeration(TAG.operation, operation),
    itsId === null ? undefined : bytes(TAG.uniqueBatchItemId, itsId),
    enumeration(TAG.resultStatus, status),
    ...more,
    payload ?? undefined,
  );
  return structure(
    TAG.responseMessage,
    structure(
      TAG.responseHeader,
      structure(
        TAG.protocolVersion,
        integer(TAG.protocolVersionMajor, version[0]),
        integer(TAG.protocolVersionMinor, version[1]),
      ),
      integer(TAG.batchCount, count),
    ),
    ...Array.from({ length: items }, () => item),
  );
}

const decode = (item: Item) => decodeAnswer(encodeTtlv(item), request);

describe('answers', () => {
  test('one that fits is taken', () => {
    assert.deepEqual(decode(answer()), { succeeded: true, payload: structure(TAG.responsePayload) });
  });

  test('a refusal has its reason and message', () => {
    const more = [enumeration(TAG.resultReason, REASON.permissionDenied), text(TAG.resultMessage, 'not you')];
    const refused = { succeeded: false, reason: REASON.permissionDenied, message: 'not you' };
    assert.deepEqual(decode(answer({ status: STATUS.operationFailed, payload: null, more })), refused);
  });

  test('a refusal of what the server could not read names neither operation nor request', () => {
    const parts = { status: STATUS.operationFailed, operation: null, id: null, payload: null };
    const refused = { succeeded: false, reason: 0, message: '' };
    assert.deepEqual(decode(answer({ ...parts, version: [1, 0] })), refused);
  });

  const good = answer();
  for (const [what, item] of [
    ['a request', { ...good, tag: TAG.requestMessage }],
    ['no structure', integer(TAG.responseMessage, 1)],
    ['no header', { ...good, value: good.value.slice(1) }],
    ['two headers', { ...good, value: [good.value[0]!, ...good.value] }],
    ['no batch item', answer({ items: 0 })],
    ['two batch items', answer({ items: 2 })],
    ['two batch items that are counted', answer({ items: 2, count: 2 })],
    ['a wrong batch count', answer({ count: 2 })],
    ['an answer to another operation', answer({ operation: OPERATION.decrypt })],
    ['an answer to no operation', answer({ operation: null })],
    ['another batch item id', answer({ id: Uint8Array.of(1) })],
    ['no batch item id', answer({ id: null })],
    ['a refusal of another operation', answer({ status: 1, operation: OPERATION.decrypt })],
    ['a refusal of another request', answer({ status: 1, id: Uint8Array.of(9) })],
    ['a pending operation', answer({ status: STATUS.operationPending })],
    ['an undone operation', answer({ status: STATUS.operationUndone })],
    ['an unknown status', answer({ status: 9 })],
    ['another version', answer({ version: [2, 0] })],
    ['no payload', answer({ payload: null })],
    ['a payload that is no structure', answer({ payload: integer(TAG.responsePayload, 1) })],
    ['two statuses', answer({ more: [enumeration(TAG.resultStatus, 0)] })],
  ] as const satisfies readonly (readonly [string, Item])[]) {
    test(`${what} is refused`, () => {
      assert.throws(() => decode(item), ParseError);
    });
  }
});

describe('payloads', () => {
  const iv = new Uint8Array(12).fill(1);
  const encrypt = encryptGcm('key', new Uint8Array(32), iv, undefined);
  const payload = (...value: Item[]) => structure(TAG.responsePayload, ...value);
  const key = text(TAG.uniqueIdentifier, 'key');
  const data = (length: number) => bytes(TAG.data, new Uint8Array(length));
  const tag = (length: number) => bytes(TAG.authenticatedEncryptionTag, new Uint8Array(length));

  test('an IV that is repeated is taken', () => {
    const read = encrypt.read(payload(key, data(32), bytes(TAG.ivCounterNonce, iv), tag(16)));
    assert.equal(read.ciphertext.length + read.tag.length, 48);
  });

  for (const [what, given] of [
    ['another key', payload(text(TAG.uniqueIdentifier, 'other'), data(32), tag(16))],
    ['no key', payload(data(32), tag(16))],
    ['no ciphertext', payload(key, tag(16))],
    ['a longer ciphertext', payload(key, data(48), tag(16))],
    ['no tag', payload(key, data(32))],
    ['a short tag', payload(key, data(32), tag(4))],
    ['two ciphertexts', payload(key, data(32), data(32), tag(16))],
    ['another IV', payload(key, data(32), bytes(TAG.ivCounterNonce, new Uint8Array(12)), tag(16))],
  ] as const) {
    test(`encrypted, with ${what}: refused`, () => {
      assert.throws(() => encrypt.read(given), ParseError);
    });
  }

  test('attributes that are missing or doubled are refused, others are left out', () => {
    const attribute = (name: string, value: Item) =>
      structure(TAG.attribute, text(TAG.attributeName, name), { ...value, tag: TAG.attributeValue });
    const all = [
      attribute('State', enumeration(0, 2)),
      attribute('Cryptographic Algorithm', enumeration(0, 3)),
      attribute('Cryptographic Length', integer(0, 256)),
      attribute('Cryptographic Usage Mask', integer(0, 12)),
    ];
    const operation = getAttributes('1.4', 'key');
    const mode = structure(TAG.cryptographicParameters, enumeration(TAG.blockCipherMode, 13));
    const read = operation.read(
      payload(key, ...all, attribute('x-own', text(0, 'x')), attribute('Cryptographic Parameters', mode)),
    );
    assert.deepEqual(read, { state: 2, algorithm: 3, length: 256, usage: 12, mode: 13 });
    for (let i = 0; i < all.length; i++) {
      assert.throws(() => operation.read(payload(key, ...all.toSpliced(i, 1))), ParseError);
      assert.throws(() => operation.read(payload(key, ...all, all[i]!)), ParseError);
    }
  });

  test('identifiers that are empty, long or not printable are refused', () => {
    for (const name of ['', 'x'.repeat(257), 'a\nb', 'é'])
      assert.throws(() => locate('1.4', 'n').read(payload(text(TAG.uniqueIdentifier, name))), ParseError);
  });

  test('what is read is not a view of the message, which is zeroed', () => {
    const box = { ciphertext: new Uint8Array(32), tag: new Uint8Array(16) };
    const secret = new Uint8Array(32).fill(7);
    const message = encodeTtlv(payload(key, bytes(TAG.data, secret)));
    const read = decryptGcm('key', box, iv, undefined).read(decodeTtlv(message) as Structure);
    message.fill(0);
    assert.deepEqual(read, secret);
  });

  test('versions: the one that was asked for must be among them', () => {
    const version = (major: number, minor: number) =>
      structure(
        TAG.protocolVersion,
        integer(TAG.protocolVersionMajor, major),
        integer(TAG.protocolVersionMinor, minor),
      );
    assert.equal(discoverVersions('2.0').read(payload(version(1, 4), version(2, 0))), true);
    assert.equal(discoverVersions('2.0').read(payload(version(1, 4))), false);
    assert.equal(discoverVersions('2.0').read(payload()), false);
  });
});

test('a user name and password travel in the header of each request', () => {
  const message = decodeTtlv(encodeRequest({ ...request, login: { username: 'me', password: 'secret' } }));
  const [header] = message.value as Item[];
  const value = structure(TAG.credentialValue, text(TAG.username, 'me'), text(TAG.password, 'secret'));
  const credential = structure(TAG.credential, enumeration(TAG.credentialType, 1), value);
  assert.deepEqual((header as Structure).value[2], structure(TAG.authentication, credential));
});
