import 'reflect-metadata';
import { PolicyError } from '@asterism/errors/errors';
import * as x509 from '@peculiar/x509';

/** Large enough for every key in use; anything above is not parsed. */
const MAX_CSR_BYTES = 8192;
const SAN = '2.5.29.17';
const CN = '2.5.4.3';
const O = '2.5.4.10';

/** Who a node is, as the provider's metadata says; not as it says itself. */
export interface NodeIdentity {
  readonly nodeName: string;
  readonly address: string;
}

/**
 * Checks a kubelet's certificate request against what is known of the machine: signed by its own key, exactly the
 * subject `O=system:nodes, CN=system:node:<name>`, no other name than the machine's address.
 *
 * @param der PKCS#10
 * @throws PolicyError ERR_CSR
 */
export async function checkKubeletCsr(der: Uint8Array, node: NodeIdentity): Promise<x509.PublicKey> {
  if (der.length === 0 || der.length > MAX_CSR_BYTES) throw refused(`it has ${der.length} bytes`);
  let request: x509.Pkcs10CertificateRequest;
  try {
    request = new x509.Pkcs10CertificateRequest(new Uint8Array(der));
  } catch (cause) {
    throw refused('it is no PKCS#10 request', cause);
  }
  if (new Uint8Array(request.rawData).length !== der.length) throw refused('bytes follow it');
  if (!(await request.verify().catch(() => false))) throw refused('its signature is not by its own key');

  const subject = request.subjectName.toJSON();
  const attributes = subject.flatMap((rdn) =>
    Object.entries(rdn).flatMap(([type, values]) => values.map((value) => [type, value] as const)),
  );
  const isCn = (type: string) => type === 'CN' || type === CN;
  const isO = (type: string) => type === 'O' || type === O;
  const names = attributes.filter(([type]) => isCn(type)).map(([, value]) => value);
  const organisations = attributes.filter(([type]) => isO(type)).map(([, value]) => value);
  if (attributes.length !== 2 || names.length !== 1 || organisations.length !== 1) {
    throw refused('its subject is not exactly one organisation and one common name');
  }
  if (organisations[0] !== 'system:nodes') throw refused('its organisation is not system:nodes');
  if (names[0] !== `system:node:${node.nodeName}`)
    throw refused(`its common name is not system:node:${node.nodeName}`);

  for (const extension of request.extensions) {
    if (extension.type !== SAN) throw refused(`it asks for the extension ${extension.type}`);
    for (const name of new x509.SubjectAlternativeNameExtension(extension.rawData).names.items) {
      if (name.type !== 'ip' || name.value !== node.address) {
        throw refused(
          `it asks for the name ${name.type}:${String(name.value).slice(0, 100)}, which is not this machine's`,
        );
      }
    }
  }
  return request.publicKey;
}

function refused(why: string, cause?: unknown): PolicyError {
  return new PolicyError('ERR_CSR', `the certificate request is refused: ${why}`, { cause });
}
