import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readWrappedKey } from './wrapped-key.ts';

const KEY_URL = 'https://asterism.vault.azure.net/keys/kek';
const version = fc.stringMatching(/^[0-9a-f]{32}$/);
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });

test('bytes come back as they are, and v2.6 text as the bytes that it is of', () => {
  fc.assert(
    fc.property(version, fc.constantFrom(256, 384, 512).chain(bytes), (one, wrappedKey) => {
      const read = readWrappedKey({ mechanism: 1, keyId: `${KEY_URL}/${one}`, wrappedKey }, KEY_URL, false);
      assert.deepEqual(read, { version: one, algorithm: 'RSA-OAEP-256', bytes: wrappedKey });
      const base64 = Buffer.from(wrappedKey).toString('base64url');
      for (const text of [base64, `${base64}${'='.repeat((4 - (base64.length % 4)) % 4)}`]) {
        const old = { mechanism: 0, keyId: one, wrappedKey: new Uint8Array(Buffer.from(text)) };
        assert.deepEqual(Uint8Array.from(readWrappedKey(old, KEY_URL, true).bytes), wrappedKey);
      }
    }),
  );
});

test('a key id that is not this key with a version is refused', () => {
  fc.assert(
    fc.property(fc.string(), version, (text, one) => {
      for (const keyId of [
        text,
        `${text}/keys/kek/${one}`,
        `${KEY_URL}/${text}`,
        `${KEY_URL}${text}/${one}`,
      ]) {
        if (keyId.toLowerCase() === `${KEY_URL}/${one}`) continue;
        const wrapped = { mechanism: 1, keyId, wrappedKey: new Uint8Array(256) };
        assert.throws(() => readWrappedKey(wrapped, KEY_URL, false), { code: 'ERR_KMS_UNWRAP' });
      }
    }),
  );
});

test('a context makes it none of v2.6: a version alone and mechanism 0 are refused', () => {
  const one = 'a'.repeat(32);
  const wrappedKey = new Uint8Array(256);
  for (const [mechanism, keyId] of [
    [0, one],
    [1, one],
    [0, `${KEY_URL}/${one}`],
  ] as const)
    assert.throws(() => readWrappedKey({ mechanism, keyId, wrappedKey }, KEY_URL, false), {
      code: 'ERR_KMS_UNWRAP',
    });
});
