import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseClusterKmsUri, renderClusterKmsUri } from './cluster-uri.ts';

const range = (from: number, to: number) => Uint8Array.from({ length: to - from + 1 }, (_, i) => from + i);
// key-vectors.md section 3
const vector =
  'kms://cluster-kms?key=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=&salt=ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=';
const key = 'A'.repeat(43);

for (const [what, uri] of [
  ['nothing', ''],
  ['another KMS', vector.replace('cluster-kms', 'aws')],
  ['another scheme', vector.replace('kms:', 'http:')],
  ['no salt', vector.split('&')[0] ?? ''],
  ['two keys', `${vector}&key=AAAA`],
  ['a third parameter', `${vector}&x=y`],
  ['an empty key', `kms://cluster-kms?key=&salt=${key}=`],
  ['a short key', `kms://cluster-kms?key=AAAA&salt=${key}=`],
  ['a short salt', `kms://cluster-kms?key=${key}=&salt=AAAA`],
  ['standard base64', vector.replace('AAEC', '++//')],
  ['base64 without padding', vector.replaceAll('=&', '&')],
  ['a fragment', `${vector}#x`],
  ['a megabyte', `kms://cluster-kms?key=${'A'.repeat(1 << 20)}&salt=${key}=`],
] as const) {
  test(`${what} is refused, without being quoted`, () => {
    assert.throws(
      () => parseClusterKmsUri(uri),
      (error: Error & { code?: string }) => error.code === 'ERR_KMS_URI' && !error.message.includes('AAEC'),
    );
  });
}

test('the vector is written and read, its padding escaped or not', () => {
  const secret = { key: range(0, 0x1f), salt: range(0x20, 0x3f) };
  assert.equal(renderClusterKmsUri(secret), vector);
  assert.deepEqual(parseClusterKmsUri(vector), secret);
  const escaped = vector.replace('Hh8=', 'Hh8%3D').replace('Pj8=', 'Pj8%3d');
  assert.deepEqual(parseClusterKmsUri(escaped), secret);
});

test('the alphabet is the URL-safe one, with padding', () => {
  const utf8 = (text: string) => new TextEncoder().encode(text);
  const short = { key: utf8('key'), salt: utf8('salt') };
  assert.equal(renderClusterKmsUri(short), 'kms://cluster-kms?key=a2V5&salt=c2FsdA==');
  const key = new Uint8Array(32).fill(0xff);
  key.set([0xfb, 0xff, 0xbe]);
  assert.match(renderClusterKmsUri({ key, salt: key }), /key=-_--______________________________________8=&/);
});

test('what is written is read', () => {
  const bytes = (minLength: number) => fc.uint8Array({ minLength, maxLength: 64 });
  fc.assert(
    fc.property(bytes(16), bytes(32), (one, two) => {
      const read = parseClusterKmsUri(renderClusterKmsUri({ key: one, salt: two }));
      assert.equal(Buffer.compare(read.key, one) + Buffer.compare(read.salt, two), 0);
    }),
  );
});
