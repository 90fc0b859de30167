import 'reflect-metadata';
import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { DerReader, TAG } from '@asterism/atls/der';
import { toHex } from '@asterism/bytes/encoding';
import { PolicyError } from '@asterism/errors/errors';
import * as x509 from '@peculiar/x509';

/** Large enough for every key in use; anything above is not parsed. */
const MAX_CSR_BYTES = 8192;
const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';
const SAN = '2.5.29.17';
const CN = '2.5.4.3';
const O = '2.5.4.10';
const CURVES = ['prime256v1', 'secp384r1', 'secp521r1'];
const MIN_RSA_BITS = 2048;
const MAX_RSA_BITS = 8192;
/** Hash of each signature algorithm that is taken, by its DER (RFC 5758 3.2, RFC 4055 5). */
const HASHES: Readonly<Record<string, string>> = {
  '300a06082a8648ce3d040302': 'sha256',
  '300a06082a8648ce3d040303': 'sha384',
  '300a06082a8648ce3d040304': 'sha512',
  '300d06092a864886f70d01010b0500': 'sha256',
  '300d06092a864886f70d01010c0500': 'sha384',
  '300d06092a864886f70d01010d0500': 'sha512',
};

/** Who a node is, as the provider's metadata says; not as it says itself. */
export interface NodeIdentity {
  readonly nodeName: string;
  readonly address: string;
}

/**
 * Checks a kubelet's certificate request against what is known of the machine: signed by its own key, exactly the
 * subject `O=system:nodes, CN=system:node:<name>`, no other name than the machine's address.
 *
 * @param der PKCS#10 (RFC 2986)
 * @returns the key to certify; nothing else of the request is to be used
 * @throws PolicyError ERR_CSR
 */
export async function checkKubeletCsr(der: Uint8Array, node: NodeIdentity): Promise<x509.PublicKey> {
  if (der.length === 0 || der.length > MAX_CSR_BYTES) throw refused(`it has ${der.length} bytes`);
  try {
    const signed = signedParts(der);
    return judge(new x509.Pkcs10CertificateRequest(new Uint8Array(der)), signed, node);
  } catch (cause) {
    if (cause instanceof PolicyError) throw cause;
    throw refused('it is no PKCS#10 request', cause);
  }
}

function judge(request: x509.Pkcs10CertificateRequest, signed: Signed, node: NodeIdentity): x509.PublicKey {
  const key = readKey(request.publicKey);
  const { hash, content, signature } = signed;
  if (!verify(hash, content, { key, dsaEncoding: 'der' }, signature))
    throw refused('its signature is not by its own key');
  checkSubject(request.subjectName, node.nodeName);
  for (const { type, value } of subjectAlternativeNames(request)) {
    if (type !== 'ip' || value !== node.address)
      throw refused(`it asks for the name ${type}:${value.slice(0, 100)}, which is not this machine's`);
  }
  return request.publicKey;
}

interface Signed {
  readonly hash: string;
  readonly content: Uint8Array;
  readonly signature: Uint8Array;
}

/**
 * The three parts of a CertificationRequest (RFC 2986 4.2), strictly DER: x509's parser forgives much in what the
 * signature does not cover.
 */
function signedParts(der: Uint8Array): Signed {
  const reader = new DerReader(der);
  let request: DerReader;
  try {
    request = reader.enter(TAG.sequence, 'the request');
    reader.end('the request');
  } catch (cause) {
    throw refused('it is not exactly one DER structure', cause);
  }
  const content = request.element(TAG.sequence, 'its information').encoded;
  const hash = HASHES[toHex(request.element(TAG.sequence, 'its signature algorithm').encoded)];
  const signature = request.contents(TAG.bitString, 'its signature');
  request.end('the request');
  if (hash === undefined) throw refused('its signature algorithm is none of ECDSA and RSA with SHA-2');
  if (signature[0] !== 0) throw refused('its signature is no whole number of bytes');
  return { hash, content, signature: signature.subarray(1) };
}

/** All names of all extensions asked for; no extension but these may be asked for. */
function subjectAlternativeNames(request: x509.Pkcs10CertificateRequest): { type: string; value: string }[] {
  for (const { type } of request.attributes)
    if (type !== EXTENSION_REQUEST) throw refused(`it has the attribute ${type}`);
  return request.extensions.flatMap((extension) => {
    if (extension.type !== SAN) throw refused(`it asks for the extension ${extension.type}`);
    const { items } = new x509.SubjectAlternativeNameExtension(extension.rawData).names;
    return items.map(({ type, value }) => ({ type, value: String(value) }));
  });
}

function checkSubject(subject: x509.Name, nodeName: string): void {
  const attributes = subject
    .toJSON()
    .flatMap((rdn) =>
      Object.entries(rdn).flatMap(([type, values]) => values.map((value) => [type, value] as const)),
    );
  const of = (...types: string[]) => attributes.filter(([type]) => types.includes(type)).map(([, v]) => v);
  const [names, organisations] = [of('CN', CN), of('O', O)];
  if (attributes.length !== 2 || names.length !== 1 || organisations.length !== 1)
    throw refused('its subject is not exactly one organisation and one common name');
  if (organisations[0] !== 'system:nodes') throw refused('its organisation is not system:nodes');
  if (names[0] !== `system:node:${nodeName}`) throw refused(`its common name is not system:node:${nodeName}`);
}

/** Keys that the API server takes and that nobody can break. */
function readKey({ rawData }: x509.PublicKey): KeyObject {
  let key: KeyObject;
  try {
    key = createPublicKey({ key: Buffer.from(rawData), format: 'der', type: 'spki' });
  } catch (cause) {
    throw refused('its key cannot be read', cause);
  }
  const { asymmetricKeyType: type } = key;
  const { namedCurve: curve = '', modulusLength: bits = 0 } = key.asymmetricKeyDetails ?? {};
  if (type === 'ec' && CURVES.includes(curve)) return key;
  if (type === 'rsa' && bits >= MIN_RSA_BITS && bits <= MAX_RSA_BITS) return key;
  throw refused(
    `its key (${type} ${curve || bits}) is not ECDSA on a NIST curve or RSA of 2048 bits or more`,
  );
}

function refused(why: string, cause?: unknown): PolicyError {
  return new PolicyError('ERR_CSR', `the certificate request is refused: ${why}`, { cause });
}
