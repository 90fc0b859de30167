import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { ParseError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { makeCertificate } from './certificate.ts';
import { contextTag, element, oid, TAG } from './der.ts';
import { newIdentity } from './identity.ts';
import { MAX_DOCUMENT_LENGTH, VALIDITY_MS } from './limits.ts';
import { parseCertificate } from './parse-certificate.ts';

const OID = '1.3.9900.5.1';
const NOW = Date.UTC(2026, 10, 24, 1, 2, 3);
const identity = newIdentity();
const bytes = (text: string) => new TextEncoder().encode(text);

function certificate(document: Uint8Array | undefined = bytes('{}'), now = NOW): Uint8Array {
  const attestation = document === undefined ? undefined : { oid: OID, document };
  return makeCertificate({ ...identity, now, ...(attestation && { attestation }) });
}

/** The certificate with its extensions replaced; the signature no longer holds, which the parser does not look at. */
function withExtensions(...extensions: Uint8Array[]): Uint8Array {
  return rebuild((parts) => {
    parts[7] = element(contextTag(3), element(TAG.sequence, ...extensions));
  });
}

function rebuild(change: (tbs: Uint8Array[]) => void): Uint8Array {
  const [tbs, algorithm, signature] = split(certificate(bytes('x')), 1);
  const parts = split(tbs!, 1);
  change(parts);
  return element(TAG.sequence, element(TAG.sequence, ...parts), algorithm!, signature!);
}

const replaced = (index: number, part: Uint8Array) => rebuild((parts) => void parts.splice(index, 1, part));

/** The elements inside an element. */
function split(der: Uint8Array, depth: number): Uint8Array[] {
  const out: Uint8Array[] = [];
  let at = headerLength(der);
  while (at < der.length) {
    const rest = der.subarray(at);
    const whole = headerLength(rest) + contentLength(rest);
    out.push(rest.subarray(0, whole));
    at += whole;
  }
  assert.ok(depth === 1);
  return out;
}
const headerLength = (der: Uint8Array) => (der[1]! < 0x80 ? 2 : 2 + (der[1]! & 0x7f));
const contentLength = (der: Uint8Array) =>
  der[1]! < 0x80
    ? der[1]!
    : [...der.subarray(2, headerLength(der))].reduce((sum, byte) => sum * 256 + byte, 0);

const extension = (id: string, value: Uint8Array, ...between: Uint8Array[]) =>
  element(TAG.sequence, oid(id), ...between, element(TAG.octetString, value));

test('the certificate is what wire-facts 1.2 says, read by OpenSSL', () => {
  const x509 = new X509Certificate(certificate(bytes('document')));
  assert.equal(x509.subject, 'CN=Constellation');
  assert.equal(x509.issuer, 'CN=Constellation');
  assert.equal(x509.ca, false);
  assert.equal(x509.subjectAltName, undefined);
  assert.equal(Date.parse(x509.validFrom), NOW - VALIDITY_MS);
  assert.equal(Date.parse(x509.validTo), NOW + VALIDITY_MS);
  assert.ok(x509.verify(x509.publicKey));
  assert.match(x509.serialNumber, /^[0-9A-F]{32}$/);
  assert.notEqual(x509.serialNumber, new X509Certificate(certificate()).serialNumber);
});

test('what is made is read again, whatever the document', () => {
  const lengths = [0, 1, 63, 64, 100, 127, 128, 200, 255, 256, 8192, MAX_DOCUMENT_LENGTH];
  for (const length of lengths) {
    const document = new Uint8Array(length).fill(7);
    const parsed = parseCertificate(certificate(document));
    assert.deepEqual(parsed.extension, { oid: OID, value: document });
    assert.deepEqual(parsed.spki, identity.spki);
  }
  assert.equal(parseCertificate(makeCertificate({ ...identity, now: NOW })).extension, undefined);
  for (const now of [
    Date.UTC(2049, 11, 31, 23),
    Date.UTC(2050, 0, 1, 3),
    Date.UTC(1999, 1, 28, 23, 59, 59),
  ]) {
    const parsed = parseCertificate(certificate(undefined, now));
    assert.deepEqual([parsed.notBefore, parsed.notAfter], [now - VALIDITY_MS, now + VALIDITY_MS]);
  }
});

test('a document that is too large is not put into a certificate, and not read from one', () => {
  const large = new Uint8Array(MAX_DOCUMENT_LENGTH + 1);
  assert.throws(() => certificate(large), RangeError);
  assert.throws(() => parseCertificate(withExtensions(extension(OID, large))), /too large/);
  assert.throws(() => parseCertificate(withExtensions(extension(OID, new Uint8Array(200_000)))), /too large/);
});

test('a certificate cut short anywhere, or with bytes added, is refused', () => {
  const der = certificate(bytes('{"a":1}'));
  for (let length = 0; length < der.length; length++)
    assert.throws(() => parseCertificate(der.subarray(0, length)), ParseError, `${length}`);
  assert.throws(() => parseCertificate(Uint8Array.of(...der, 0)), ParseError);
});

test('shapes that are not ours are refused', () => {
  const value = bytes('v');
  const cases: Record<string, [Uint8Array, RegExp]> = {
    'same extension twice': [withExtensions(extension(OID, value), extension(OID, value)), /more than one/],
    'another extension besides': [
      withExtensions(extension(OID, value), extension('2.5.29.15', value)),
      /more than one/,
    ],
    critical: [withExtensions(extension(OID, value, Uint8Array.of(1, 1, 0xff))), /critical/],
    'no extension in the list': [withExtensions(), /extension/],
    'garbage for an extension': [withExtensions(Uint8Array.of(0x30, 0x03, 0x01, 0x02, 0x03)), /extension/],
    'value that is no octet string': [
      withExtensions(element(TAG.sequence, oid(OID), element(TAG.utf8String, value))),
      /extension value/,
    ],
    'length not in shortest form': [
      withExtensions(Uint8Array.of(0x30, 0x81, 0x06, 0x06, 0x01, 0x2a, 0x04, 0x01, 0x76)),
      /shortest/,
    ],
    'indefinite length': [withExtensions(Uint8Array.of(0x30, 0x80, 0, 0)), /not DER/],
    'version 1': [rebuild((parts) => void parts.shift()), /version/],
    'other issuer': [replaced(3, element(TAG.sequence)), /self-issued/],
    'other algorithm': [replaced(2, element(TAG.sequence, oid('1.2.3'))), /algorithm/],
    'other key': [replaced(6, element(TAG.sequence, oid('1.2.3'))), /P-256/],
    'compressed point': [
      rebuild((parts) => {
        parts[6] = parts[6]!.slice();
        parts[6]![26] = 2;
      }),
      /P-256/,
    ],
    'unique id after the key': [
      rebuild((parts) => void parts.splice(7, 0, Uint8Array.of(0x81, 1, 0))),
      /tag/,
    ],
  };
  for (const [name, [der, reason]] of Object.entries(cases)) {
    assert.throws(
      () => parseCertificate(der),
      (error: Error) => error instanceof ParseError && reason.test(error.message),
      name,
    );
  }
});

test('times that do not exist are refused', () => {
  for (const text of [
    '260230000000Z',
    '261301000000Z',
    '260101240000Z',
    '260101006000Z',
    '26010100000Z',
    '2601010000000',
    '2601010000-1Z',
  ]) {
    const time = element(TAG.utcTime, bytes(text));
    const der = replaced(4, element(TAG.sequence, time, time));
    assert.throws(() => parseCertificate(der), /not a time/, text);
  }
});

test('whatever bytes change, the parser throws ParseError or reads', () => {
  const der = certificate(bytes('{"UserData":"","Nonce":""}'));
  const change = fc.tuple(fc.nat(der.length - 1), fc.nat(255));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const bad = der.slice();
      for (const [at, byte] of changes) bad[at] = byte;
      try {
        parseCertificate(bad);
      } catch (error) {
        assert.ok(error instanceof ParseError, `${error}`);
      }
    }),
    { numRuns: 2000 },
  );
});
