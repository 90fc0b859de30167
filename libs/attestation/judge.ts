import { PolicyError, UnreachableError, VerificationError } from '@asterism/errors/errors';
import type { Verdict, Verifier } from './types.ts';

/**
 * Has evidence judged, so that there are only two outcomes: a verdict, or an error that says how it failed. What a
 * verifier throws of another kind (a malformed document, say) is a judgement too: the evidence is false.
 *
 * @param nonce the own nonce that the evidence was to be made for, 32 bytes
 * @throws VerificationError | PolicyError | UnreachableError, or the signal's reason
 */
export async function judge(
  verifier: Verifier,
  document: Uint8Array,
  nonce: Uint8Array,
  signal?: AbortSignal,
): Promise<Verdict> {
  try {
    return await verifier.verify(document, nonce, signal);
  } catch (cause) {
    const judged = [VerificationError, PolicyError, UnreachableError].some((kind) => cause instanceof kind);
    if (judged || signal?.aborted) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new VerificationError(
      'ERR_EVIDENCE_FORM',
      `the evidence (${verifier.variant}) cannot be judged: ${why}`,
      { cause, checks: [{ name: 'form', outcome: 'failed', detail: why }] },
    );
  }
}
