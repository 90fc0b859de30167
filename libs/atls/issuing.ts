import type { Issuer } from '@asterism/attestation/types';
import { UnreachableError } from '@asterism/errors/errors';
import { makeCertificate } from './certificate.ts';
import type { Identity } from './identity.ts';

/**
 * Certificate for one handshake.
 *
 * @param issuer undefined: a certificate without evidence
 * @param nonce the other party's nonce
 */
export async function issueCertificate(
  issuer: Issuer | undefined,
  identity: Identity,
  nonce: Uint8Array,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { privateKey, spki } = identity;
  if (issuer === undefined) return makeCertificate({ privateKey, spki, now: Date.now() });
  const document = await abortable(issuer.issue(identity.userData, nonce, signal), signal);
  return makeCertificate({
    privateKey,
    spki,
    attestation: { oid: issuer.oid, document },
    now: Date.now(),
  });
}

/** `promise`, or the signal's reason when that comes first. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) {
      promise.catch(() => {});
      return abort();
    }
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** The reason of a wait that took too long. */
export function timedOut(what: string, ms: number): UnreachableError {
  return new UnreachableError(`${what} took longer than ${ms} ms`, { code: 'ERR_ATLS_TIMEOUT' });
}
