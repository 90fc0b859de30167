import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { ParseError } from '@asterism/errors/errors';
import { element, oid, TAG } from './der.ts';
import { commonName, newNonce, nonceCa, nonceFromName, nonceFromText, nonceText } from './nonce.ts';

const bytes = (text: string) => new TextEncoder().encode(text);
const attribute = (type: string, tag: number, text: string) =>
  element(TAG.set, element(TAG.sequence, oid(type), element(tag, bytes(text))));

test('a nonce is 32 fresh bytes and travels as 44 characters', () => {
  const nonce = newNonce();
  assert.equal(nonce.length, 32);
  assert.notDeepEqual(nonce, newNonce());
  assert.equal(nonceText(nonce), Buffer.from(nonce).toString('base64'));
  assert.deepEqual(nonceFromText(nonceText(nonce)), nonce);
});

test('texts that are no nonce are refused', () => {
  const good = nonceText(new Uint8Array(32));
  for (const text of [
    '',
    'localhost',
    good.slice(0, 43),
    `${good}=`,
    good.replace('=', 'A'),
    `${'A'.repeat(42)}B=`,
    'A'.repeat(60),
  ])
    assert.throws(() => nonceFromText(text), ParseError, text);
});

test('the CA is a certificate for OpenSSL, and its subject carries the nonce', () => {
  const nonce = newNonce();
  const ca = new X509Certificate(nonceCa(nonce));
  assert.equal(ca.serialNumber, '0');
  // OpenSSL prints the plus sign escaped.
  assert.equal(ca.subject.replaceAll('\\', ''), `CN=${nonceText(nonce)}`);
  assert.deepEqual(nonceFromName(commonName(nonceText(nonce))), nonce);
});

test('names: UTF8String is read as well, other attributes are passed over', () => {
  const nonce = newNonce();
  const text = nonceText(nonce);
  const country = attribute('2.5.4.6', TAG.printableString, 'DE');
  assert.deepEqual(nonceFromName(element(TAG.sequence, attribute('2.5.4.3', TAG.utf8String, text))), nonce);
  const both = element(TAG.sequence, country, attribute('2.5.4.3', TAG.printableString, text));
  assert.deepEqual(nonceFromName(both), nonce);
});

test('names without a nonce are refused', () => {
  const text = nonceText(newNonce());
  const names = {
    empty: element(TAG.sequence),
    'no common name': element(TAG.sequence, attribute('2.5.4.6', TAG.printableString, 'DE')),
    'no string': element(TAG.sequence, attribute('2.5.4.3', TAG.integer, text)),
    'no nonce': element(TAG.sequence, attribute('2.5.4.3', TAG.utf8String, 'localhost')),
    'bytes after it': Uint8Array.of(...commonName(text), 0),
    'cut short': commonName(text).subarray(0, 40),
  };
  for (const [what, name] of Object.entries(names))
    assert.throws(() => nonceFromName(name), ParseError, what);
});
