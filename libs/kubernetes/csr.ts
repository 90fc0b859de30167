import 'reflect-metadata';
import { createPublicKey } from 'node:crypto';
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
  if (sequenceLength(der) !== der.length) throw refused('it is not exactly one DER structure');
  try {
    return await judge(new x509.Pkcs10CertificateRequest(new Uint8Array(der)), node);
  } catch (cause) {
    if (cause instanceof PolicyError) throw cause;
    throw refused('it is no PKCS#10 request', cause);
  }
}

async function judge(request: x509.Pkcs10CertificateRequest, node: NodeIdentity): Promise<x509.PublicKey> {
  const key = request.publicKey;
  checkKey(key);
  if (!(await request.verify())) throw refused('its signature is not by its own key');
  checkSubject(request.subjectName, node.nodeName);
  for (const { type, value } of subjectAlternativeNames(request)) {
    if (type !== 'ip' || value !== node.address)
      throw refused(`it asks for the name ${type}:${value.slice(0, 100)}, which is not this machine's`);
  }
  return key;
}

/** Length of the DER sequence that begins with these bytes, header included; undefined where none does (X.690 8.1). */
function sequenceLength(der: Uint8Array): number | undefined {
  const [tag, first = 0, second = 0, third = 0] = der;
  if (tag !== 0x30) return undefined;
  if (first < 0x80) return 2 + first;
  if (first === 0x81) return 3 + second;
  return first === 0x82 ? 4 + 256 * second + third : undefined;
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
function checkKey(key: x509.PublicKey): void {
  let type: string | undefined;
  let curve = '';
  let bits = 0;
  try {
    const parsed = createPublicKey({ key: Buffer.from(key.rawData), format: 'der', type: 'spki' });
    type = parsed.asymmetricKeyType;
    curve = parsed.asymmetricKeyDetails?.namedCurve ?? '';
    bits = parsed.asymmetricKeyDetails?.modulusLength ?? 0;
  } catch (cause) {
    throw refused('its key cannot be read', cause);
  }
  if (type === 'ec' && CURVES.includes(curve)) return;
  if (type === 'rsa' && bits >= MIN_RSA_BITS && bits <= MAX_RSA_BITS) return;
  throw refused(
    `its key (${type} ${curve || bits}) is not ECDSA on a NIST curve or RSA of 2048 bits or more`,
  );
}

function refused(why: string, cause?: unknown): PolicyError {
  return new PolicyError('ERR_CSR', `the certificate request is refused: ${why}`, { cause });
}
