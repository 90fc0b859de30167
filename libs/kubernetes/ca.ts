import 'reflect-metadata';
import { createHash, createPrivateKey, X509Certificate as NodeCertificate, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { AsterismError } from '@asterism/errors/errors';
import * as x509 from '@peculiar/x509';

/** Certificates are valid a little before they are made: clocks differ. */
const BACKDATED_MS = 2 * 3_600_000;
const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

export interface CertificateRequest {
  readonly subject: x509.JsonName;
  readonly publicKey: x509.PublicKey | CryptoKey;
  readonly names: { readonly type: 'ip' | 'dns'; readonly value: string }[];
  readonly usages: readonly ('client' | 'server')[];
  readonly validForMs: number;
}

/** The cluster's certificate authority, as kubeadm makes it. Only control planes have its key. */
export class ClusterCa {
  readonly certificate: x509.X509Certificate;
  /** The certificate as it is in ca.crt. */
  readonly pem: string;
  readonly #key: CryptoKey;
  readonly #algorithm: Algorithm | EcdsaParams;

  private constructor(pem: string, key: CryptoKey, algorithm: Algorithm | EcdsaParams) {
    this.certificate = new x509.X509Certificate(pem);
    this.pem = pem;
    this.#key = key;
    this.#algorithm = algorithm;
  }

  /**
   * @param folder with ca.crt and ca.key, /etc/kubernetes/pki
   * @throws AsterismError ERR_CLUSTER_CA
   */
  static async load(folder: string): Promise<ClusterCa> {
    try {
      const pem = await readFile(`${folder}/ca.crt`, 'utf8');
      const key = createPrivateKey(await readFile(`${folder}/ca.key`, 'utf8'));
      if (!new NodeCertificate(pem).checkPrivateKey(key)) throw new Error("the key is not the certificate's");
      const curve = key.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? 'P-384' : 'P-256';
      const algorithm =
        key.asymmetricKeyType === 'ec'
          ? { name: 'ECDSA', namedCurve: curve, hash: 'SHA-256' }
          : { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
      const pkcs8 = key.export({ type: 'pkcs8', format: 'der' });
      return new ClusterCa(
        pem,
        await crypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']),
        algorithm,
      );
    } catch (cause) {
      throw new AsterismError('ERR_CLUSTER_CA', `cannot read the cluster's CA in ${folder}`, { cause });
    }
  }

  /** @returns PEM */
  async sign(request: CertificateRequest): Promise<string> {
    const serial = randomBytes(16);
    serial[0] = (serial[0]! & 0x7f) | 1;
    const now = Date.now();
    const usage = { client: x509.ExtendedKeyUsage.clientAuth, server: x509.ExtendedKeyUsage.serverAuth };
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial.toString('hex'),
      subject: request.subject,
      issuer: this.certificate.subjectName,
      notBefore: new Date(now - BACKDATED_MS),
      notAfter: new Date(Math.min(now + request.validForMs, this.certificate.notAfter.getTime())),
      publicKey: request.publicKey,
      signingKey: this.#key,
      signingAlgorithm: this.#algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment,
          true,
        ),
        new x509.ExtendedKeyUsageExtension(request.usages.map((name) => usage[name])),
        await x509.SubjectKeyIdentifierExtension.create(request.publicKey),
        ...authorityKeyId(this.certificate),
        new x509.SubjectAlternativeNameExtension(request.names),
      ],
    });
    return `${certificate.toString('pem')}\n`;
  }

  /** kubeadm's pin of this CA: "sha256:" and the hex SHA-256 of its SubjectPublicKeyInfo. */
  pin(): string {
    return `sha256:${createHash('sha256').update(new Uint8Array(this.certificate.publicKey.rawData)).digest('hex')}`;
  }

  /** A serving certificate for names in the cluster, with a key made here. @returns both as PEM */
  async servingCertificate(
    names: readonly string[],
    validForMs: number,
  ): Promise<{ cert: string; key: string }> {
    const keys = (await crypto.subtle.generateKey(P256, true, ['sign', 'verify'])) as CryptoKeyPair;
    const cert = await this.sign({
      subject: [{ CN: [names[0]!] }],
      publicKey: keys.publicKey,
      names: names.map((value) => ({ type: 'dns', value })),
      usages: ['server'],
      validForMs,
    });
    const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
    return {
      cert,
      key: `-----BEGIN PRIVATE KEY-----\n${der.match(/.{1,64}/g)!.join('\n')}\n-----END PRIVATE KEY-----\n`,
    };
  }
}

/** What the CA calls its key (kubeadm's Go takes another hash than most); without a name there is none to repeat. */
function authorityKeyId(ca: x509.X509Certificate): x509.Extension[] {
  const own = ca.getExtension(x509.SubjectKeyIdentifierExtension);
  return own === null ? [] : [new x509.AuthorityKeyIdentifierExtension(own.keyId)];
}
