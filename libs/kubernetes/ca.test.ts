import 'reflect-metadata';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { connect, createServer } from 'node:tls';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import * as x509 from '@peculiar/x509';
import { ClusterCa } from './ca.ts';

const openssl = (...args: string[]) =>
  execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
const YEAR_MS = 365 * 24 * 3_600_000;

/** A CA as openssl makes it. @param key arguments of `openssl req -newkey` */
async function withCa(key: readonly string[], use: (ca: ClusterCa, folder: string) => Promise<void>) {
  await using folder = await temporaryFolder();
  const [crt, pem] = [folder.file('ca.crt'), folder.file('ca.key')];
  openssl(
    'req',
    '-x509',
    '-nodes',
    '-subj',
    '/CN=kubernetes',
    '-addext',
    'keyUsage=critical,keyCertSign,digitalSignature',
    '-days',
    '100',
    '-out',
    crt,
    '-keyout',
    pem,
    ...key,
  );
  await use(await ClusterCa.load(folder.path), folder.path);
}

for (const [what, key] of [
  ['P-256', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']],
  ['P-384', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384']],
  ['RSA', ['-newkey', 'rsa:2048']],
  // Go names keys by another hash than OpenSSL does; a certificate that names its issuer's key otherwise has no issuer.
  [
    'a key identifier of its own',
    [
      '-newkey',
      'rsa:2048',
      '-addext',
      'subjectKeyIdentifier=0102030405',
      '-addext',
      'authorityKeyIdentifier=none',
    ],
  ],
] as const) {
  test(`openssl accepts what a CA with ${what} signs, for these uses and this name only`, async () => {
    await withCa(key, async (ca, folder) => {
      const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
      const pem = await ca.sign({
        subject: [{ O: ['system:nodes'] }, { CN: ['system:node:worker-0'] }],
        publicKey: new x509.PublicKey(publicKey.export({ format: 'der', type: 'spki' })),
        names: [{ type: 'ip', value: '10.77.1.5' }],
        usages: ['client', 'server'],
        validForMs: YEAR_MS,
      });
      await writeFile(`${folder}/leaf.crt`, pem);
      for (const purpose of ['sslclient', 'sslserver'])
        openssl(
          'verify',
          '-x509_strict',
          '-CAfile',
          `${folder}/ca.crt`,
          '-purpose',
          purpose,
          `${folder}/leaf.crt`,
        );
      const leaf = new X509Certificate(pem);
      const root = new X509Certificate(openssl('x509', '-in', `${folder}/ca.crt`));
      assert.ok(leaf.checkIssued(root) && leaf.verify(root.publicKey));
      assert.equal(leaf.subject, 'O=system:nodes\nCN=system:node:worker-0');
      assert.equal(leaf.subjectAltName, 'IP Address:10.77.1.5');
      assert.equal(leaf.ca, false);
      // Never longer than the CA itself.
      assert.ok(Date.parse(leaf.validTo) <= Date.parse(root.validTo));
      assert.ok(Date.parse(leaf.validFrom) < Date.now() - 3_600_000);
    });
  });
}

test("the pin is kubeadm's: SHA-256 of the SubjectPublicKeyInfo", async () => {
  await withCa(['-newkey', 'rsa:2048'], async (ca, folder) => {
    const spki = createPublicKey(openssl('x509', '-in', `${folder}/ca.crt`, '-noout', '-pubkey'));
    const der = spki.export({ format: 'der', type: 'spki' });
    assert.equal(ca.pin(), `sha256:${createHash('sha256').update(der).digest('hex')}`);
  });
});

test('a serving certificate is for its names only, and serves', async () => {
  await withCa(['-newkey', 'rsa:2048'], async (ca, folder) => {
    const server = createServer(await ca.servingCertificate(['a.svc', 'a'], 3_600_000), (s) => s.end());
    server.on('tlsClientError', () => {});
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const root = openssl('x509', '-in', `${folder}/ca.crt`);
    const tries = (servername: string) =>
      new Promise<string>((resolve) => {
        const socket = connect({ host: '127.0.0.1', port, ca: root, servername });
        socket.once('secureConnect', () => resolve('accepted'));
        socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
        socket.on('close', () => socket.destroy());
      });
    assert.equal(await tries('a.svc'), 'accepted');
    assert.equal(await tries('b.svc'), 'ERR_TLS_CERT_ALTNAME_INVALID');
    server.close();
  });
});

test('no CA, half a CA, garbage: an error without key material', async () => {
  await using folder = await temporaryFolder();
  await assert.rejects(ClusterCa.load(folder.path), { code: 'ERR_CLUSTER_CA' });
  await writeFile(folder.file('ca.crt'), 'x');
  await writeFile(folder.file('ca.key'), 'TOPSECRET');
  await assert.rejects(
    ClusterCa.load(folder.path),
    (error: Error & { code?: string }) =>
      error.code === 'ERR_CLUSTER_CA' && !error.message.includes('TOPSECRET'),
  );
});

test("a key that is not the certificate's is refused", async () => {
  await withCa(['-newkey', 'rsa:2048'], async (_, folder) => {
    openssl('genrsa', '-out', `${folder}/ca.key`, '2048');
    await assert.rejects(ClusterCa.load(folder), { code: 'ERR_CLUSTER_CA' });
  });
});
