import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { PolicyError } from '@asterism/errors/errors';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import fc from 'fast-check';
import { checkKubeletCsr } from './csr.ts';
import { makeKubeletRequest } from './kubelet.ts';

const node = { nodeName: 'worker-0', address: '10.77.1.5' };
const SUBJECT = '/O=system:nodes/CN=system:node:worker-0';
const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
const IP = ['-addext', 'subjectAltName=IP:10.77.1.5'];

/** A request as openssl makes it. */
function csr(subject: string, extra: readonly string[] = IP, key: readonly string[] = EC): Uint8Array {
  const args = [
    'req',
    '-new',
    '-nodes',
    '-keyout',
    '/dev/null',
    '-outform',
    'DER',
    '-utf8',
    '-subj',
    subject,
  ];
  return new Uint8Array(
    execFileSync('openssl', [...args, ...key, ...extra], { stdio: ['ignore', 'pipe', 'ignore'] }),
  );
}

const good = csr(SUBJECT);
const flipped = (at: number) => good.with(at < 0 ? good.length + at : at, good.at(at)! ^ 1);
const san = (names: string) => ['-addext', `subjectAltName=${names}`];

for (const [what, der, why] of [
  ['nothing', new Uint8Array(), /0 bytes/],
  ['nine kilobytes', new Uint8Array(9000).fill(0x30), /9000 bytes/],
  ['garbage', Uint8Array.of(0x30, 3, 1, 1, 0xff), /no PKCS#10/],
  ['text', new TextEncoder().encode('-----BEGIN CERTIFICATE REQUEST-----'), /DER/],
  ['bytes that follow', Uint8Array.of(...good, 0), /exactly one DER/],
  ['a request that is cut off', good.subarray(0, -1), /exactly one DER/],
  ['a broken signature', flipped(-1), /signature/],
  ['another subject under the old signature', flipped(good.indexOf(0x77)), /signature|subject|name/],
  [
    "another node's name",
    csr('/O=system:nodes/CN=system:node:worker-1'),
    /common name is not system:node:worker-0/,
  ],
  ['a name in capitals', csr('/O=system:nodes/CN=system:node:WORKER-0'), /common name/],
  ['a name without prefix', csr('/O=system:nodes/CN=worker-0'), /common name/],
  ['an administrator', csr('/O=system:masters/CN=system:node:worker-0'), /organisation is not/],
  ['two organisations', csr('/O=system:nodes/O=system:masters/CN=system:node:worker-0'), /exactly one/],
  [
    'two organisations in one set',
    csr('/O=system:nodes+O=system:masters/CN=system:node:worker-0'),
    /exactly one/,
  ],
  ['two common names', csr('/O=system:nodes/CN=system:node:worker-0/CN=kubernetes-admin'), /exactly one/],
  ['a unit', csr('/O=system:nodes/OU=x/CN=system:node:worker-0'), /exactly one/],
  ['no organisation', csr('/CN=system:node:worker-0'), /exactly one/],
  ['an empty subject', csr('/'), /exactly one/],
  ["another machine's address", csr(SUBJECT, san('IP:10.77.1.2')), /ip:10\.77\.1\.2/],
  ['a second address', csr(SUBJECT, san('IP:10.77.1.5,IP:10.77.1.1')), /ip:10\.77\.1\.1/],
  ['a DNS name', csr(SUBJECT, san('IP:10.77.1.5,DNS:kubernetes.default.svc')), /dns:kubernetes/],
  ['its own DNS name', csr(SUBJECT, san('DNS:worker-0')), /dns:worker-0/],
  ['an e-mail address', csr(SUBJECT, san('email:a@b')), /email/],
  ['a URI', csr(SUBJECT, san('URI:spiffe://x/y')), /url:spiffe/],
  ['an IPv6 address', csr(SUBJECT, san('IP:::ffff:10.77.1.5')), /ip:/],
  [
    'a certificate authority',
    csr(SUBJECT, [...IP, '-addext', 'basicConstraints=critical,CA:TRUE']),
    /2\.5\.29\.19/,
  ],
  ['a key of 1024 bits', csr(SUBJECT, IP, ['-newkey', 'rsa:1024']), /key/],
  ['an unusual curve', csr(SUBJECT, IP, ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:secp256k1']), /key/],
  ['an Ed25519 key', csr(SUBJECT, IP, ['-newkey', 'ed25519']), /algorithm/],
] as const) {
  test(`refused: ${what}`, async () => {
    await assert.rejects(checkKubeletCsr(der, node), (error: PolicyError) => {
      assert.ok(error instanceof PolicyError, String(error));
      assert.equal(error.code, 'ERR_CSR');
      assert.match(error.message, why);
      return true;
    });
  });
}

for (const [what, der] of [
  ['with the address', good],
  ['without names', csr(SUBJECT, [])],
  ['in the other order', csr('/CN=system:node:worker-0/O=system:nodes')],
  ['on P-384', csr(SUBJECT, IP, ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'])],
  ['with RSA', csr(SUBJECT, IP, ['-newkey', 'rsa:2048'])],
] as const) {
  test(`accepted: ${what}`, async () => {
    const key = await checkKubeletCsr(der, node);
    assert.ok(Buffer.from(der).includes(Buffer.from(key.rawData)));
  });
}

test('whatever is changed in what is signed, it is refused as a request', async () => {
  // Outer header, then the signed part with its own header (both lengths need one byte at least).
  const start = good[1]! < 0x80 ? 2 : 1 + (good[1]! & 0x7f) + 1;
  const header = good[start + 1]! < 0x80 ? 2 : 2 + (good[start + 1]! & 0x7f);
  const length = Number.parseInt(
    Buffer.from(good.subarray(start + (header > 2 ? 2 : 1), start + header)).toString('hex'),
    16,
  );
  const end = start + header + length;
  await fc.assert(
    fc.asyncProperty(fc.nat(end - 1), fc.integer({ min: 1, max: 255 }), async (at, mask) => {
      await assert.rejects(checkKubeletCsr(good.with(at, good[at]! ^ mask), node), PolicyError);
    }),
    { numRuns: 500 },
  );
});

test('cut off anywhere, it is refused as a request', async () => {
  for (let length = 0; length < good.length; length++)
    await assert.rejects(
      checkKubeletCsr(good.subarray(0, length), node),
      { code: 'ERR_CSR' },
      `${length} bytes`,
    );
});

test('garbage is refused as a request, whether or not it begins like one', async () => {
  const refuse = async (der: Uint8Array) => {
    await assert.rejects(checkKubeletCsr(der, node), { code: 'ERR_CSR' });
  };
  await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), refuse));
  const sequence = (content: Uint8Array) =>
    Uint8Array.of(0x30, 0x82, content.length >> 8, content.length & 0xff, ...content);
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), (content) => refuse(sequence(content))),
  );
  // The middle of a good one is replaced.
  await fc.assert(
    fc.asyncProperty(fc.nat(good.length - 1), fc.uint8Array({ minLength: 1, maxLength: 40 }), (at, bytes) => {
      const changed = good.slice();
      changed.set(bytes.subarray(0, good.length - at), at);
      fc.pre(Buffer.compare(changed, good) !== 0);
      return refuse(changed);
    }),
  );
});

test('a request that differs from a good one in any byte is refused', async () => {
  for (let at = 0; at < good.length; at++) {
    for (const value of [0, 1, 2, 3, 0xff, good[at]! ^ 1, good[at]! ^ 0x80]) {
      if (value === good[at]) continue;
      await assert.rejects(
        checkKubeletCsr(good.with(at, value), node),
        { code: 'ERR_CSR' },
        `${at}: ${value}`,
      );
    }
  }
});

test('a request with a challenge password, well signed, is refused for that attribute', async () => {
  await using folder = await temporaryFolder();
  const file = folder.file('openssl.cnf');
  const name = '[dn]\nO=system:nodes\nCN=system:node:worker-0\n';
  // openssl takes attributes from its configuration alone, and only with the subject.
  await writeFile(
    file,
    `[req]\nprompt=no\ndistinguished_name=dn\nattributes=at\n${name}[at]\nchallengePassword=secret1\n`,
  );
  const args = ['req', '-new', '-nodes', '-keyout', '/dev/null', '-outform', 'DER', '-config', file, ...EC];
  const der = new Uint8Array(execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'] }));
  await assert.rejects(checkKubeletCsr(der, node), {
    code: 'ERR_CSR',
    message: /attribute 1\.2\.840\.113549\.1\.9\.7/,
  });
});

test("what a node's own kubelet request is, this accepts, for that node alone", async () => {
  const { csr: der } = await makeKubeletRequest(node.nodeName, node.address);
  await checkKubeletCsr(der, node);
  await assert.rejects(checkKubeletCsr(der, { ...node, address: '10.77.1.6' }), { code: 'ERR_CSR' });
  await assert.rejects(checkKubeletCsr(der, { ...node, nodeName: 'worker-1' }), { code: 'ERR_CSR' });
});
