import 'reflect-metadata';
import { randomBytes } from 'node:crypto';
import * as x509 from '@peculiar/x509';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const HOUR_MS = 3_600_000;

/** A certificate with its private key, both PEM. */
export interface KeyPairPem {
  readonly certificate: string;
  readonly key: string;
}

export interface TestCertificate {
  /** CN, and the DNS name. */
  readonly name: string;
  readonly usage: 'server' | 'client';
  /** Addresses beside the name, e.g. 127.0.0.1. */
  readonly addresses?: readonly string[];
  /** It ran out an hour ago. */
  readonly expired?: boolean;
}

/** A certificate authority that lives as long as a test. */
export interface TestCa {
  /** PEM of its certificate. */
  readonly pem: string;
  issue(request: TestCertificate): Promise<KeyPairPem>;
}

export async function testCa(name = 'Asterism test CA'): Promise<TestCa> {
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: [{ CN: [name] }],
    notBefore: new Date(Date.now() - 3 * HOUR_MS),
    notAfter: new Date(Date.now() + 24 * HOUR_MS),
    keys,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  });
  return {
    pem: root.toString('pem'),
    async issue({ name: subject, usage, addresses = [], expired = false }) {
      const own = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
      const certificate = await x509.X509CertificateGenerator.create({
        serialNumber: serial(),
        subject: [{ CN: [subject] }],
        issuer: root.subjectName,
        notBefore: new Date(Date.now() - 2 * HOUR_MS),
        notAfter: new Date(Date.now() + (expired ? -HOUR_MS : 24 * HOUR_MS)),
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        signingAlgorithm: ALGORITHM,
        extensions: [
          new x509.BasicConstraintsExtension(false, undefined, true),
          new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
          new x509.ExtendedKeyUsageExtension([
            usage === 'server' ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth,
          ]),
          new x509.SubjectAlternativeNameExtension([
            { type: 'dns', value: subject },
            ...addresses.map((value) => ({ type: 'ip' as const, value })),
          ]),
        ],
      });
      const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', own.privateKey));
      return {
        certificate: certificate.toString('pem'),
        key: x509.PemConverter.encode(pkcs8, 'PRIVATE KEY'),
      };
    },
  };
}

function serial(): string {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x7f) | 1;
  return bytes.toString('hex');
}
