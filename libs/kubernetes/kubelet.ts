import 'reflect-metadata';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { writeFileAtomic } from '@asterism/disk/atomic-file';
import { runChecked } from '@asterism/runtime/program';
import * as x509 from '@peculiar/x509';
import { KUBELET_CERT, KUBELET_KEY } from './kubeadm.ts';

const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** The kubelet's key pair and the request for its certificate. */
export interface KubeletRequest {
  /** PKCS#8, PEM. */
  readonly privateKeyPem: string;
  /** DER PKCS#10: O system:nodes, CN system:node:NAME, IP SAN. */
  readonly csr: Uint8Array;
}

/** Makes a P-256 key and the CSR that JoinService expects of a node. */
export async function makeKubeletRequest(nodeName: string, nodeIp: string): Promise<KubeletRequest> {
  const keys = await makeKeys();
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    name: nodeSubject(nodeName),
    keys,
    signingAlgorithm: P256,
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: 'ip', value: nodeIp }])],
  });
  return { privateKeyPem: await toPem(keys.privateKey), csr: new Uint8Array(csr.rawData) };
}

/**
 * On the first control plane the node itself holds the CA's key: it signs its kubelet's serving certificate.
 * Does nothing where a certificate for this node is there already and lasts for another 30 days.
 */
export async function signOwnKubeletCertificate(
  nodeName: string,
  nodeIp: string,
  pki: string,
  certPath = KUBELET_CERT,
  keyPath = KUBELET_KEY,
): Promise<void> {
  const caPem = await readFile(`${pki}/ca.crt`, 'utf8');
  if (await isStillGood(certPath, caPem, nodeIp)) return;
  const ca = new x509.X509Certificate(caPem);
  const caKey = await importCaKey(await readFile(`${pki}/ca.key`, 'utf8'));
  const keys = await makeKeys();
  const now = Date.now();
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: Buffer.from(
      crypto.getRandomValues(new Uint8Array(16)).map((b, i) => (i === 0 ? (b & 0x7f) | 1 : b)),
    ).toString('hex'),
    subject: nodeSubject(nodeName),
    issuer: ca.subjectName.toString(),
    notBefore: new Date(now - 2 * 3_600_000),
    notAfter: new Date(now + 365 * 86_400_000),
    publicKey: keys.publicKey,
    signingKey: caKey.key,
    signingAlgorithm: caKey.algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment,
        true,
      ),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension([
        { type: 'dns', value: nodeName },
        { type: 'ip', value: nodeIp },
      ]),
    ],
  });
  await writeFileAtomic(keyPath, await toPem(keys.privateKey), 0o600);
  await writeFileAtomic(certPath, `${certificate.toString('pem')}\n`, 0o644);
}

/** Starts the kubelet's unit now; at later boots the bootstrapper does so, the root file system being read-only. */
export async function startKubelet(signal?: AbortSignal): Promise<void> {
  const options = { timeoutMs: 60_000, ...(signal === undefined ? {} : { signal }) };
  await runChecked('systemctl', ['start', 'kubelet.service'], options);
}

/** kubeadm marshals EC keys as SEC 1, RSA keys as PKCS#1: node:crypto reads both and hands on PKCS#8. */
async function importCaKey(pem: string): Promise<{ key: CryptoKey; algorithm: EcdsaParams | Algorithm }> {
  const key = createPrivateKey(pem);
  const pkcs8 = key.export({ type: 'pkcs8', format: 'der' });
  const algorithm =
    key.asymmetricKeyType === 'ec'
      ? { name: 'ECDSA', namedCurve: curveOf(key.asymmetricKeyDetails?.namedCurve), hash: 'SHA-256' }
      : { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  return { key: await crypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']), algorithm };
}

function curveOf(name: string | undefined): string {
  return name === 'secp384r1' ? 'P-384' : 'P-256';
}

async function isStillGood(certPath: string, caPem: string, nodeIp: string): Promise<boolean> {
  try {
    const certificate = new X509Certificate(await readFile(certPath));
    return (
      certificate.verify(new X509Certificate(caPem).publicKey) &&
      certificate.checkIP(nodeIp) !== undefined &&
      Date.parse(certificate.validTo) > Date.now() + 30 * 86_400_000
    );
  } catch {
    return false;
  }
}

function makeKeys(): Promise<CryptoKeyPair> {
  return crypto.subtle.generateKey(P256, true, ['sign', 'verify']) as Promise<CryptoKeyPair>;
}

function nodeSubject(nodeName: string): x509.JsonName {
  return [{ O: ['system:nodes'] }, { CN: [`system:node:${nodeName}`] }];
}

async function toPem(key: CryptoKey): Promise<string> {
  const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', key)).toString('base64');
  return `-----BEGIN PRIVATE KEY-----\n${der.match(/.{1,64}/g)!.join('\n')}\n-----END PRIVATE KEY-----\n`;
}
