import { concat, equal } from '@asterism/bytes/bytes';
import { toUtf8 } from '@asterism/bytes/encoding';
import { Reader } from '@asterism/bytes/reader';
import { ParseError } from '@asterism/errors/errors';
import { MESSAGE } from './records.ts';

/** RFC 8446 4.1.3: the random value that makes a ServerHello a HelloRetryRequest. */
const RETRY = new Uint8Array(
  Buffer.from('cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c', 'hex'),
);
const TLS_1_3 = 0x0304;
const SUPPORTED_VERSIONS = 43;
const SIGNATURE_ALGORITHMS = 13;
const CERTIFICATE_AUTHORITIES = 47;
const ECDSA_P256_SHA256 = 0x0403;

export interface ServerHello {
  readonly retry: boolean;
  readonly cipherSuite: number;
}

/** RFC 8446 4.1.3. @throws ParseError when malformed, or not of TLS 1.3 */
export function parseServerHello(body: Uint8Array): ServerHello {
  const reader = new Reader(body);
  reader.u16be('legacy_version');
  const retry = equal(reader.bytes(32, 'random'), RETRY);
  reader.bytes(reader.u8('length of session id'), 'session id');
  const cipherSuite = reader.u16be('cipher suite');
  reader.u8('compression method');
  // A ServerHello of TLS 1.2 may end here.
  const version = reader.remaining === 0 ? undefined : extensionsOf(reader).get(SUPPORTED_VERSIONS);
  reader.end('ServerHello');
  if (version === undefined || new Reader(version).u16be('version') !== TLS_1_3 || version.length !== 2)
    throw new ParseError('the server does not speak TLS 1.3, which a client with evidence needs');
  return { retry, cipherSuite };
}

export interface CertificateRequest {
  /** DER names of the acceptable certificate authorities. */
  readonly authorities: readonly Uint8Array[];
}

/** RFC 8446 4.3.2. @throws ParseError when malformed, or when ECDSA P-256 with SHA-256 is not acceptable */
export function parseCertificateRequest(body: Uint8Array): CertificateRequest {
  const reader = new Reader(body);
  if (reader.u8('length of context') !== 0)
    reader.fail('the context of a request in the handshake is not empty');
  const extensions = extensionsOf(reader);
  reader.end('CertificateRequest');
  const algorithms = extensions.get(SIGNATURE_ALGORITHMS);
  if (algorithms === undefined || !vectorOf16(algorithms).includes(ECDSA_P256_SHA256))
    throw new ParseError('the server does not accept ECDSA P-256 with SHA-256');
  const authorities: Uint8Array[] = [];
  const encoded = extensions.get(CERTIFICATE_AUTHORITIES);
  if (encoded !== undefined) {
    const outer = new Reader(encoded);
    const list = outer.sub(outer.u16be('length of authorities'), 'authorities');
    outer.end('authorities');
    while (list.remaining > 0) authorities.push(list.bytes(list.u16be('length of name'), 'name'));
  }
  return { authorities };
}

/** RFC 8446 4.4.2: the server's own certificate in its Certificate message. @throws ParseError */
export function parseCertificateMessage(body: Uint8Array): Uint8Array {
  const reader = new Reader(body);
  if (reader.u8('length of context') !== 0) reader.fail('the context of a server certificate is not empty');
  const list = reader.sub(reader.u24be('length of list'), 'certificate list');
  reader.end('Certificate');
  if (list.remaining === 0) list.fail('the server shows no certificate');
  const certificate = list.bytes(list.u24be('length of certificate'), 'certificate');
  list.bytes(list.u16be('length of extensions'), 'extensions');
  if (list.remaining > 0) list.fail('the server shows more than one certificate');
  return certificate;
}

function extensionsOf(reader: Reader): Map<number, Uint8Array> {
  const list = reader.sub(reader.u16be('length of extensions'), 'extensions');
  const found = new Map<number, Uint8Array>();
  while (list.remaining > 0) {
    const type = list.u16be('extension type');
    if (found.has(type)) list.fail(`extension ${type} comes twice`);
    found.set(type, list.bytes(list.u16be('length of extension'), 'extension'));
  }
  return found;
}

function vectorOf16(bytes: Uint8Array): number[] {
  const reader = new Reader(bytes);
  const list = reader.sub(reader.u16be('length of list'), 'list');
  reader.end('list');
  const out: number[] = [];
  while (list.remaining > 0) out.push(list.u16be('element'));
  return out;
}

function message(type: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const body = concat(...parts);
  return concat(Uint8Array.of(type), uint24(body.length), body);
}

function uint24(value: number): Uint8Array {
  return Uint8Array.of(value >> 16, (value >> 8) & 0xff, value & 0xff);
}

/** What a client without a certificate answers to a request. */
export const EMPTY_CERTIFICATE = message(MESSAGE.certificate, Uint8Array.of(0, 0, 0, 0));

/** RFC 8446 4.4.2: Certificate with one certificate and no extensions. */
export function certificateMessage(der: Uint8Array): Uint8Array {
  // Empty context; list of one entry: the certificate and no extensions.
  const context = Uint8Array.of(0);
  const noExtensions = Uint8Array.of(0, 0);
  return message(MESSAGE.certificate, context, uint24(der.length + 5), uint24(der.length), der, noExtensions);
}

const VERIFY_PREFIX = concat(
  new Uint8Array(64).fill(0x20),
  toUtf8('TLS 1.3, client CertificateVerify'),
  Uint8Array.of(0),
);

/** RFC 8446 4.4.3: what a client signs to show that it holds its key. */
export function certificateVerifyInput(transcriptHash: Uint8Array): Uint8Array {
  return concat(VERIFY_PREFIX, transcriptHash);
}

export function certificateVerifyMessage(signature: Uint8Array): Uint8Array {
  const { length } = signature;
  const algorithm = Uint8Array.of(ECDSA_P256_SHA256 >> 8, ECDSA_P256_SHA256 & 0xff);
  return message(MESSAGE.certificateVerify, algorithm, Uint8Array.of(length >> 8, length & 0xff), signature);
}

export function finishedMessage(verifyData: Uint8Array): Uint8Array {
  return message(MESSAGE.finished, verifyData);
}

/** RFC 8446 4.4.1: what stands in the transcript for the first ClientHello after a HelloRetryRequest. */
export function messageHash(hash: Uint8Array): Uint8Array {
  return message(MESSAGE.messageHash, hash);
}
