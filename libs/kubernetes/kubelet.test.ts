import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after, before, it } from 'node:test';
import { runChecked } from '@asterism/runtime/program';
import { makeKubeletRequest, signOwnKubeletCertificate } from './kubelet.ts';

let folder: string;
before(async () => {
  folder = await mkdtemp(`${tmpdir()}/asterism-kubelet-`);
});
after(() => rm(folder, { recursive: true, force: true }));

const openssl = (args: readonly string[]): Promise<string> =>
  runChecked('openssl', args, { timeoutMs: 20_000 });

it('makes a request that openssl verifies, with the right names', async () => {
  const { csr } = await makeKubeletRequest('cp-0', '10.77.1.2');
  await writeFile(`${folder}/csr.der`, csr);
  const said = await openssl([
    'req',
    '-inform',
    'DER',
    '-in',
    `${folder}/csr.der`,
    '-verify',
    '-noout',
    '-text',
  ]);
  assert.match(said, /O\s*=\s*system:nodes,\s*CN\s*=\s*system:node:cp-0/);
  assert.match(said, /IP Address:10\.77\.1\.2/);
  assert.doesNotMatch(said, /DNS:/);
});

for (const [kind, newkey] of [
  ['RSA', ['rsa:2048']],
  ['EC', ['ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']],
] as const) {
  it(`signs the kubelet's certificate with an ${kind} CA`, async () => {
    const pki = await mkdtemp(`${folder}/${kind}-`);
    await openssl([
      'req',
      '-x509',
      '-nodes',
      '-newkey',
      ...newkey,
      '-subj',
      '/CN=kubernetes',
      '-days',
      '3650',
      '-keyout',
      `${pki}/ca.key`,
      '-out',
      `${pki}/ca.crt`,
    ]);
    const [cert, key] = [`${pki}/kubelet.crt`, `${pki}/kubelet.key`];
    await signOwnKubeletCertificate('cp-0', '10.77.1.2', pki, cert, key);
    await openssl(['verify', '-purpose', 'sslserver', '-CAfile', `${pki}/ca.crt`, cert]);
    const parsed = new X509Certificate(await readFile(cert));
    assert.equal(parsed.subjectAltName, 'DNS:cp-0, IP Address:10.77.1.2');
    assert.equal((await stat(key)).mode & 0o777, 0o600);

    await signOwnKubeletCertificate('cp-0', '10.77.1.2', pki, cert, key);
    assert.equal(new X509Certificate(await readFile(cert)).serialNumber, parsed.serialNumber);
    await signOwnKubeletCertificate('cp-0', '10.77.1.3', pki, cert, key);
    assert.notEqual(new X509Certificate(await readFile(cert)).serialNumber, parsed.serialNumber);
  });
}
