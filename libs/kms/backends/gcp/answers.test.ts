import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { parseCryptoKey, parseDecrypted, parseEncrypted } from './answers.ts';

const NAME = 'projects/project/locations/global/keyRings/ring/cryptoKeys/key/cryptoKeyVersions/1';
const json = (value: unknown) => toUtf8(JSON.stringify(value));
const checksum = fc.integer({ min: 0, max: 0xffffffff });

test('what Cloud KMS answers is read as it was written', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 1024 }),
      checksum,
      fc.boolean(),
      (bytes, crc, verified) => {
        const encrypted = parseEncrypted(
          json({
            name: NAME,
            ciphertext: toBase64(bytes),
            ciphertextCrc32c: String(crc),
            verifiedPlaintextCrc32c: verified,
            verifiedAdditionalAuthenticatedDataCrc32c: true,
            somethingNew: {},
          }),
        );
        assert.deepEqual(encrypted, { name: NAME, ciphertext: bytes, ciphertextCrc32c: crc, verified });
        assert.deepEqual(parseDecrypted(json({ plaintext: toBase64(bytes), plaintextCrc32c: String(crc) })), {
          plaintext: bytes,
          plaintextCrc32c: crc,
        });
      },
    ),
  );
});

test('anything else is a ParseError', () => {
  const field = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constant('AAAA'), checksum.map(String));
  const names = fc.constantFrom(
    'name',
    'ciphertext',
    'ciphertextCrc32c',
    'plaintext',
    'plaintextCrc32c',
    'primary',
  );
  const answer = fc.oneof(fc.uint8Array(), fc.string().map(toUtf8), fc.dictionary(names, field).map(json));
  fc.assert(
    fc.property(answer, fc.constantFrom(parseEncrypted, parseDecrypted, parseCryptoKey), (bytes, parse) => {
      try {
        parse(bytes);
      } catch (error) {
        assert.ok(error instanceof ParseError);
      }
    }),
  );
});
