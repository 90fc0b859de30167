import { randomBytes } from 'node:crypto';
import { concat } from '@asterism/bytes/bytes';
import { fromBase64, toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { contextTag, DerReader, element, header, oid, pem, TAG } from './der.ts';
import { NONCE_LENGTH } from './limits.ts';

/** 32 fresh random bytes. */
export function newNonce(): Uint8Array {
  return new Uint8Array(randomBytes(NONCE_LENGTH));
}

/** How a nonce travels as TLS server name and as common name of a CA: standard base64 with padding. */
export function nonceText(nonce: Uint8Array): string {
  return toBase64(nonce);
}

/** The nonce of a server name or common name. @throws ParseError unless it is base64 of exactly 32 bytes. */
export function nonceFromText(text: string): Uint8Array {
  if (text.length !== 44) throw new ParseError('nonce is not the base64 of 32 bytes');
  const nonce = fromBase64(text);
  if (nonce.length !== NONCE_LENGTH) throw new ParseError('nonce is not the base64 of 32 bytes');
  return nonce;
}

const COMMON_NAME = oid('2.5.4.3');

/** RDNSequence with the single attribute CN=`text`, PrintableString as Go writes it. */
export function commonName(text: string): Uint8Array {
  const attribute = element(TAG.sequence, COMMON_NAME, element(TAG.printableString, toUtf8(text)));
  return element(TAG.sequence, element(TAG.set, attribute));
}

// The CA exists so that OpenSSL copies its subject into the CertificateRequest. It never goes over the wire and
// signs nothing, so key and signature are fixed fillers of the right form; only the subject changes.
const FILLER_POINT = Buffer.from(
  '3059301306072a8648ce3d020106082a8648ce3d03010703420004' +
    '6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296' +
    '4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5',
  'hex',
);
const ECDSA_SHA256 = element(TAG.sequence, oid('1.2.840.10045.4.3.2'));
const SERIAL_ZERO = element(TAG.integer, Uint8Array.of(0));
const VERSION_3 = element(contextTag(0), element(TAG.integer, Uint8Array.of(2)));
const FOREVER = element(
  TAG.sequence,
  element(TAG.utcTime, toUtf8('200101000000Z')),
  element(TAG.generalizedTime, toUtf8('99991231235959Z')),
);
const FILLER_SIGNATURE = element(
  TAG.bitString,
  Uint8Array.of(0),
  element(TAG.sequence, element(TAG.integer, Uint8Array.of(1)), element(TAG.integer, Uint8Array.of(1))),
);

const BLANK = '.'.repeat(44);
const TEMPLATE = nonceCaOf(commonName(BLANK));
const SUBJECTS = [TEMPLATE.indexOf(BLANK), TEMPLATE.lastIndexOf(BLANK)];

function nonceCaOf(name: Uint8Array): Buffer {
  const body = concat(VERSION_3, SERIAL_ZERO, ECDSA_SHA256, name, FOREVER, name, FILLER_POINT);
  const tbs = concat(header(TAG.sequence, body.length), body);
  return Buffer.from(element(TAG.sequence, tbs, ECDSA_SHA256, FILLER_SIGNATURE));
}

/** PEM of the throw-away CA whose subject carries the server's nonce to the client (CN = base64). */
export function nonceCa(nonce: Uint8Array): string {
  const certificate = Buffer.from(TEMPLATE);
  for (const at of SUBJECTS) certificate.write(nonceText(nonce), at, 'latin1');
  return pem('CERTIFICATE', certificate);
}

/**
 * The nonce in the DER subject of the one CA that a server names as acceptable: its first common name, as
 * PrintableString or UTF8String.
 *
 * @throws ParseError when the name is malformed, has no common name, or that is no nonce
 */
export function nonceFromName(name: Uint8Array): Uint8Array {
  const outer = new DerReader(name);
  const sequence = outer.enter(TAG.sequence, 'name');
  outer.end('name');
  while (!sequence.empty) {
    const set = sequence.enter(TAG.set, 'relative name');
    while (!set.empty) {
      const attribute = set.enter(TAG.sequence, 'attribute');
      const type = attribute.element(TAG.oid, 'attribute type').encoded;
      if (Buffer.compare(type, COMMON_NAME) !== 0) {
        // Another attribute of the name: its value may be of any type, and does not concern us.
        continue;
      }
      const tag = attribute.next === TAG.utf8String ? TAG.utf8String : TAG.printableString;
      const value = attribute.contents(tag, 'common name');
      attribute.end('attribute');
      return nonceFromText(Buffer.from(value).toString('latin1'));
    }
  }
  throw new ParseError('the acceptable CA has no common name');
}
