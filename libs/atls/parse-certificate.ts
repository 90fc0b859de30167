import { ParseError } from '@asterism/errors/errors';
import { contextTag, DerReader, dotted, TAG } from './der.ts';
import { MAX_CERTIFICATE_LENGTH, MAX_DOCUMENT_LENGTH } from './limits.ts';

/** What is read of a peer's certificate. Byte strings are views of the input. */
export interface PeerCertificate {
  /** The signed part, as encoded. */
  readonly tbs: Uint8Array;
  /** DER SubjectPublicKeyInfo, always of a P-256 key, uncompressed: 91 bytes. */
  readonly spki: Uint8Array;
  /** Milliseconds since 1970. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** DER ECDSA signature over `tbs`. */
  readonly signature: Uint8Array;
  /** The certificate's only extension, if it has one. */
  readonly extension: { readonly oid: string; readonly value: Uint8Array } | undefined;
}

const ECDSA_SHA256 = hex('300a06082a8648ce3d040302');
/** id-ecPublicKey, prime256v1, BIT STRING of 65 bytes, uncompressed point. */
const P256_PREFIX = hex('3059301306072a8648ce3d020106082a8648ce3d03010703420004');

/**
 * Reads a certificate of the shape that aTLS has and no other: version 3, ECDSA P-256 with SHA-256, issuer equal to
 * subject, at most one extension, not critical, at most 60,000 bytes. Judges no signature and no time.
 *
 * @throws ParseError with the offset of the first deviation
 */
export function parseCertificate(der: Uint8Array): PeerCertificate {
  if (der.length > MAX_CERTIFICATE_LENGTH)
    throw new ParseError(`certificate of ${der.length} bytes is too large`);
  const outer = new DerReader(der);
  const certificate = outer.enter(TAG.sequence, 'certificate');
  outer.end('certificate');
  const tbsElement = certificate.element(TAG.sequence, 'tbsCertificate');
  exactly(certificate, ECDSA_SHA256, 'signature algorithm');
  const bits = certificate.contents(TAG.bitString, 'signature');
  certificate.end('signature');
  if (bits.length < 2 || bits[0] !== 0) throw new ParseError('signature is not a whole number of bytes');

  const base = tbsElement.contents.offset;
  const tbs = new DerReader(tbsElement.contents.rest(), base);
  const version = tbs.enter(contextTag(0), 'version');
  const number = version.contents(TAG.integer, 'version');
  version.end('version');
  if (number.length !== 1 || number[0] !== 2) tbs.fail('certificate is not version 3');
  const serial = tbs.contents(TAG.integer, 'serial number');
  if (serial.length === 0 || serial.length > 20) tbs.fail('serial number has an unusual length');
  exactly(tbs, ECDSA_SHA256, 'signature algorithm');
  const issuer = tbs.element(TAG.sequence, 'issuer').encoded;
  const validity = tbs.enter(TAG.sequence, 'validity');
  const notBefore = readTime(validity, 'notBefore');
  const notAfter = readTime(validity, 'notAfter');
  validity.end('validity');
  const subject = tbs.element(TAG.sequence, 'subject').encoded;
  if (Buffer.compare(issuer, subject) !== 0) tbs.fail('certificate is not self-issued');
  const spki = tbs.element(TAG.sequence, 'subjectPublicKeyInfo').encoded;
  if (spki.length !== 91 || Buffer.compare(spki.subarray(0, P256_PREFIX.length), P256_PREFIX) !== 0)
    tbs.fail('public key is not an uncompressed P-256 point');
  const extension = tbs.empty ? undefined : readExtension(tbs);
  tbs.end('tbsCertificate');
  return { tbs: tbsElement.encoded, spki, notBefore, notAfter, signature: bits.subarray(1), extension };
}

function readExtension(tbs: DerReader): { oid: string; value: Uint8Array } {
  const explicit = tbs.enter(contextTag(3), 'extensions');
  const list = explicit.enter(TAG.sequence, 'extensions');
  explicit.end('extensions');
  const extension = list.enter(TAG.sequence, 'extension');
  if (!list.empty) list.fail('certificate has more than one extension');
  const id = dotted(extension.contents(TAG.oid, 'extension id'));
  // A default of FALSE is not encoded in DER, so a BOOLEAN here says TRUE or is malformed.
  if (extension.next === TAG.boolean) extension.fail('extension is critical');
  const value = extension.contents(TAG.octetString, 'extension value');
  extension.end('extension');
  if (value.length > MAX_DOCUMENT_LENGTH) extension.fail(`document of ${value.length} bytes is too large`);
  return { oid: id, value };
}

function exactly(reader: DerReader, expected: Uint8Array, what: string): void {
  const { encoded } = reader.element(TAG.sequence, what);
  if (Buffer.compare(encoded, expected) !== 0) reader.fail(`${what} is not the expected one`);
}

function readTime(reader: DerReader, what: string): number {
  const general = reader.next === TAG.generalizedTime;
  const text = reader.contents(general ? TAG.generalizedTime : TAG.utcTime, what);
  const digits = (general ? 4 : 2) + 10;
  if (text.length !== digits + 1 || text[digits] !== 0x5a) return reader.fail(`${what} is not a time`);
  const pairs: number[] = [];
  for (let at = 0; at < digits; at += 2) {
    const tens = text[at]! - 0x30;
    const ones = text[at + 1]! - 0x30;
    if (tens < 0 || tens > 9 || ones < 0 || ones > 9) return reader.fail(`${what} is not a time`);
    pairs.push(tens * 10 + ones);
  }
  // RFC 5280 4.1.2.5.1: two-digit years from 50 on are of the twentieth century.
  const century = general ? pairs.shift()! : pairs[0]! < 50 ? 20 : 19;
  const [year, month, day, hour, minute, second] = pairs as [number, number, number, number, number, number];
  const date = new Date(0);
  date.setUTCFullYear(century * 100 + year, month - 1, day);
  date.setUTCHours(hour, minute, second);
  // A day that does not exist becomes another one.
  if (
    date.getUTCMonth() !== month - 1 ||
    date.getUTCDate() !== day ||
    hour > 23 ||
    minute > 59 ||
    second > 59
  )
    return reader.fail(`${what} is not a time`);
  return date.getTime();
}

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'hex'));
}
