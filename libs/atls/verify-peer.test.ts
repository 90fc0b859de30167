import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { ParseError, PolicyError, UnreachableError, VerificationError } from '@asterism/errors/errors';
import { fakeDocument, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { makeCertificate } from './certificate.ts';
import { newIdentity } from './identity.ts';
import { newNonce } from './nonce.ts';
import { verifyPeer } from './verify-peer.ts';

const OID = '1.3.9900.1';
const NOW = Date.now();
const identity = newIdentity();
const nonce = newNonce();

function shown(
  options: { nonce?: Uint8Array; userData?: Uint8Array; oid?: string; document?: Uint8Array } = {},
) {
  const document =
    options.document ?? fakeDocument(options.userData ?? identity.userData, options.nonce ?? nonce);
  return new X509Certificate(
    makeCertificate({ ...identity, now: NOW, attestation: { oid: options.oid ?? OID, document } }),
  );
}

const refused = (
  certificate: X509Certificate | undefined,
  code: string,
  now = NOW,
  verifier = fakeVerifier(),
) =>
  assert.rejects(verifyPeer(certificate, [verifier], nonce, now), (error: VerificationError) => {
    assert.ok(error instanceof VerificationError, `${error}`);
    assert.equal(error.code, code);
    return true;
  });

test('evidence that holds gives its verdict, whichever verifier it is for', async () => {
  const verifiers = [fakeVerifier({ oid: '1.3.9900.2' }), fakeVerifier()];
  const verdict = await verifyPeer(shown(), verifiers, nonce, NOW);
  assert.deepEqual(verdict?.userData, identity.userData);
});

test('without verifiers only the certificate itself is judged', async () => {
  assert.equal(await verifyPeer(shown({ document: new Uint8Array(10) }), [], nonce, NOW), undefined);
  await assert.rejects(verifyPeer(shown(), [], nonce, NOW + 3 * 3600_000), VerificationError);
  await assert.rejects(verifyPeer(undefined, [], nonce, NOW), VerificationError);
});

test('what is missing is refused', async () => {
  await refused(undefined, 'ERR_ATLS_NO_CERTIFICATE');
  await refused(new X509Certificate(makeCertificate({ ...identity, now: NOW })), 'ERR_ATLS_NO_ATTESTATION');
});

test('evidence of another handshake is refused', async () => {
  await refused(shown({ nonce: newNonce() }), 'ERR_NONCE');
  // The whole certificate of another machine's handshake with us: its key is not the one that TLS proved. Here: a
  // document that vouches for another key than the certificate's.
  await refused(shown({ userData: newIdentity().userData }), 'ERR_ATLS_USER_DATA');
  await refused(shown({ userData: identity.userData.subarray(0, 31) }), 'ERR_ATLS_USER_DATA');
});

test('evidence of a variant that is not accepted is refused', async () => {
  await refused(shown({ oid: '1.3.9900.2' }), 'ERR_ATLS_UNKNOWN_VARIANT');
});

test('a certificate out of its time is refused', async () => {
  const hours = 3600_000;
  await refused(shown(), 'ERR_ATLS_CERTIFICATE_TIME', NOW - 2 * hours - 2000);
  await refused(shown(), 'ERR_ATLS_CERTIFICATE_TIME', NOW + 2 * hours + 2000);
});

test('a certificate signed by another key is refused', async () => {
  const other = newIdentity();
  const der = makeCertificate({ ...identity, privateKey: other.privateKey, now: NOW });
  await refused(new X509Certificate(der), 'ERR_ATLS_CERTIFICATE_SIGNATURE');
  const changed = shown().raw;
  changed[changed.length - 1]! ^= 1;
  await refused(new X509Certificate(changed), 'ERR_ATLS_CERTIFICATE_SIGNATURE');
});

test('errors of a verifier: judgements pass, malformed documents become false evidence', async () => {
  await refused(shown({ document: new Uint8Array(100) }), 'ERR_EVIDENCE_FORM');
  await refused(shown(), 'ERR_EVIDENCE_FORM', NOW, fakeVerifier({ fail: new TypeError('bug') }));
  await refused(shown(), 'ERR_EVIDENCE_FORM', NOW, fakeVerifier({ fail: new ParseError('bad') }));
  for (const fail of [new PolicyError('ERR_P', 'no'), new UnreachableError('no collateral')])
    await assert.rejects(verifyPeer(shown(), [fakeVerifier({ fail })], nonce, NOW), fail);
});
