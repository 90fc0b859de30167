import { type KeyObject, randomBytes, sign } from 'node:crypto';
import { concat } from '@asterism/bytes/bytes';
import { toUtf8 } from '@asterism/bytes/encoding';
import { contextTag, element, header, oid, TAG } from './der.ts';
import { MAX_DOCUMENT_LENGTH, VALIDITY_MS } from './limits.ts';

const VERSION_3 = element(contextTag(0), element(TAG.integer, Uint8Array.of(2)));
const ECDSA_SHA256 = element(TAG.sequence, oid('1.2.840.10045.4.3.2'));
const NAME = element(
  TAG.sequence,
  element(
    TAG.set,
    element(TAG.sequence, oid('2.5.4.3'), element(TAG.printableString, toUtf8('Constellation'))),
  ),
);

export interface CertificateInput {
  /** P-256 key that the certificate is for and that signs it. */
  readonly privateKey: KeyObject;
  /** DER SubjectPublicKeyInfo of that key. */
  readonly spki: Uint8Array;
  /** The evidence; without it the certificate has no extension. */
  readonly attestation?: { readonly oid: string; readonly document: Uint8Array };
  /** Milliseconds since 1970. */
  readonly now: number;
}

/**
 * DER of the one certificate shape that aTLS has (wire-facts 1.2): self-signed, CN "Constellation" as v2.6 peers
 * have it, random serial, valid two hours either way, at most one extension: OID of the variant, contents the raw
 * document. Written by hand because it is made per handshake: a general library takes 14 to 29 times as long.
 *
 * @throws RangeError when the document is larger than 60,000 bytes
 */
export function makeCertificate({ privateKey, spki, attestation, now }: CertificateInput): Uint8Array {
  const serial = new Uint8Array(randomBytes(16));
  // Positive and of fixed length: DER wants no leading zero byte and no sign bit.
  serial[0] = (serial[0]! & 0x7f) | 0x40;
  const parts = [
    VERSION_3,
    element(TAG.integer, serial),
    ECDSA_SHA256,
    NAME,
    element(TAG.sequence, time(now - VALIDITY_MS), time(now + VALIDITY_MS)),
    NAME,
    spki,
  ];
  if (attestation !== undefined) {
    const { document } = attestation;
    if (document.length > MAX_DOCUMENT_LENGTH)
      throw new RangeError(`document of ${document.length} bytes; at most ${MAX_DOCUMENT_LENGTH} fit`);
    const id = oid(attestation.oid);
    const value = header(TAG.octetString, document.length);
    const extension = header(TAG.sequence, id.length + value.length + document.length);
    const inner = extension.length + id.length + value.length + document.length;
    const list = header(TAG.sequence, inner);
    parts.push(header(contextTag(3), list.length + inner), list, extension, id, value, document);
  }
  const body = concat(...parts);
  const tbs = concat(header(TAG.sequence, body.length), body);
  const signature = sign('sha256', tbs, privateKey);
  return element(
    TAG.sequence,
    tbs,
    ECDSA_SHA256,
    element(TAG.bitString, Uint8Array.of(0), new Uint8Array(signature)),
  );
}

/** X.509 Time (RFC 5280 4.1.2.5): UTCTime through 2049, GeneralizedTime after. */
function time(ms: number): Uint8Array {
  const iso = new Date(ms).toISOString();
  const day = iso.slice(5, 7) + iso.slice(8, 10);
  const rest = `${day}${iso.slice(11, 13)}${iso.slice(14, 16)}${iso.slice(17, 19)}Z`;
  if (Number(iso.slice(0, 4)) < 2050) return element(TAG.utcTime, toUtf8(iso.slice(2, 4) + rest));
  return element(TAG.generalizedTime, toUtf8(iso.slice(0, 4) + rest));
}
