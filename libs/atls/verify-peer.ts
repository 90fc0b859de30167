import { createHash, timingSafeEqual, type X509Certificate } from 'node:crypto';
import { judge } from '@asterism/attestation/judge';
import type { Verdict, Verifier } from '@asterism/attestation/types';
import { VerificationError } from '@asterism/errors/errors';
import { type PeerCertificate, parseCertificate } from './parse-certificate.ts';

/**
 * Judges the certificate that a peer showed in a handshake (wire-facts 1.3). TLS itself has proven that the peer
 * holds the private key.
 *
 * @param shown the certificate as it came
 * @param verifiers none: self-signature and validity are all that is looked at
 * @param nonce the own nonce of this handshake
 * @param now milliseconds since 1970
 * @returns the verdict; undefined exactly when there are no verifiers
 * @throws VerificationError the certificate or the evidence in it is false
 * @throws PolicyError the evidence is genuine but not what the policy allows
 */
export async function verifyPeer(
  shown: X509Certificate | undefined,
  verifiers: readonly Verifier[],
  nonce: Uint8Array,
  now: number,
  signal?: AbortSignal,
): Promise<Verdict | undefined> {
  if (shown === undefined)
    throw new VerificationError('ERR_ATLS_NO_CERTIFICATE', 'the peer showed no certificate, so no evidence');
  const certificate = parse(shown.raw);
  if (now < certificate.notBefore || now > certificate.notAfter)
    throw new VerificationError(
      'ERR_ATLS_CERTIFICATE_TIME',
      `the peer's certificate is valid from ${iso(certificate.notBefore)} to ${iso(certificate.notAfter)}, ` +
        `and it is ${iso(now)} here; compare the clocks`,
    );
  if (!selfSigned(shown))
    throw new VerificationError(
      'ERR_ATLS_CERTIFICATE_SIGNATURE',
      "the peer's certificate is not signed by its own key",
    );
  if (verifiers.length === 0) return undefined;

  const { extension } = certificate;
  if (extension === undefined)
    throw new VerificationError(
      'ERR_ATLS_NO_ATTESTATION',
      "the peer's certificate does not contain an attestation document",
    );
  const verifier = verifiers.find((candidate) => candidate.oid === extension.oid);
  if (verifier === undefined)
    throw new VerificationError(
      'ERR_ATLS_UNKNOWN_VARIANT',
      `the peer's evidence has the OID ${extension.oid}; accepted here: ` +
        verifiers.map(({ variant, oid }) => `${variant} (${oid})`).join(', '),
    );
  const verdict = await judge(verifier, extension.value, nonce, signal);
  const expected = createHash('sha256').update(certificate.spki).digest();
  if (verdict.userData.length !== expected.length || !timingSafeEqual(verdict.userData, expected))
    throw new VerificationError(
      'ERR_ATLS_USER_DATA',
      "the peer's evidence vouches for another key than the one of this connection",
      { checks: verdict.checks },
    );
  return verdict;
}

function parse(der: Uint8Array): PeerCertificate {
  try {
    return parseCertificate(der);
  } catch (cause) {
    throw new VerificationError(
      'ERR_ATLS_CERTIFICATE',
      `the peer's certificate is not one of aTLS: ${(cause as Error).message}`,
      { cause },
    );
  }
}

// OpenSSL's reading of the certificate is the one that TLS used; after the strict parser it is the same as ours.
function selfSigned(certificate: X509Certificate): boolean {
  try {
    return certificate.verify(certificate.publicKey);
  } catch {
    // The point is not on the curve.
    return false;
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
