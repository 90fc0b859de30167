import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toBase64 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import fc from 'fast-check';
import {
  errorsOf,
  parseBody,
  parseDecrypted,
  parseEncrypted,
  parseKey,
  parseLogin,
  versionOf,
} from './answers.ts';

test('a ciphertext names the version of its key, whatever the bytes', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 999_999_999 }),
      fc.uint8Array({ minLength: 28, maxLength: 2000 }),
      (version, sealed) => {
        const ciphertext = `vault:v${version}:${toBase64(sealed)}`;
        assert.equal(versionOf(ciphertext), version);
        assert.deepEqual(parseEncrypted({ data: { ciphertext } }), { ciphertext, version });
      },
    ),
  );
});

test('what is no ciphertext is refused', () => {
  const sealed = toBase64(new Uint8Array(60));
  for (const text of [
    '',
    'vault:v1:',
    `vault:v0:${sealed}`,
    `vault:v01:${sealed}`,
    `vault:v-1:${sealed}`,
    `vault:v9999999999:${sealed}`,
    `Vault:v1:${sealed}`,
    `vault:v1:${sealed}\n`,
    `vault:v1:${sealed}=`,
    `vault:v1:${toBase64(new Uint8Array(27))}`,
    `vault:v1:${'A'.repeat(8192)}`,
    `vault:v1:${toBase64(new Uint8Array(59)).replace(/A=$/, 'B=')}`,
  ])
    assert.throws(() => versionOf(text), ParseError, text.slice(0, 40));
});

test('arbitrary text and arbitrary JSON are refused by ParseError', () => {
  const parsers = [parseKey, parseEncrypted, parseDecrypted, parseLogin];
  const refused = (run: () => unknown) => {
    try {
      run();
    } catch (error) {
      assert.ok(error instanceof ParseError, String(error));
    }
  };
  fc.assert(fc.property(fc.string(), (text) => refused(() => parseBody(text))));
  fc.assert(
    fc.property(fc.json({ maxDepth: 3 }), (text) =>
      refused(() => {
        const body = parseBody(text);
        assert.equal(typeof errorsOf(body), 'string');
        for (const parse of parsers) refused(() => parse(body));
      }),
    ),
  );
});

test('fields of a wrong type or out of bounds are refused', () => {
  const key = { type: 'aes256-gcm96', latest_version: 1, min_decryption_version: 1 };
  assert.equal(parseKey({ data: key }).exportable, false);
  assert.equal(parseKey({ data: { ...key, allow_plaintext_backup: true } }).exportable, true);
  for (const change of [
    { type: 5 },
    { type: '' },
    { latest_version: 0 },
    { latest_version: 1.5 },
    { latest_version: '1' },
    { min_decryption_version: -1 },
    { derived: 'no' },
    { soft_deleted: 1 },
  ])
    assert.throws(() => parseKey({ data: { ...key, ...change } }), ParseError, JSON.stringify(change));
  assert.throws(() => parseLogin({ auth: { client_token: 'a\r\nb', lease_duration: 1 } }), ParseError);
  assert.throws(
    () => parseLogin({ auth: { client_token: 'x'.repeat(20_000), lease_duration: 1 } }),
    ParseError,
  );
  assert.throws(() => parseDecrypted({ data: { plaintext: 'A'.repeat(5000) } }), ParseError);
});
