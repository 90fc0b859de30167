import { equal } from '@asterism/bytes/bytes';
import { fromBase64, fromUtf8, toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { parseJson } from '@asterism/bytes/json';
import { AsterismError, ParseError, VerificationError } from '@asterism/errors/errors';
import type { Issuer, Verifier } from '../../types.ts';
import { VARIANTS } from '../../variants.ts';

/** Said by who makes one of these: it is never a default. */
export interface Insecure {
  readonly allowInsecure: boolean;
}

const MAX_DOCUMENT_BYTES = 60_000;

function demand(options: Insecure): void {
  if (!options.allowInsecure) {
    throw new AsterismError(
      'ERR_INSECURE_VARIANT',
      'the dummy variant proves nothing and was not allowed explicitly',
    );
  }
}

/** Documents that prove nothing: {"UserData", "Nonce"} in JSON. */
export function createDummyIssuer(options: Insecure): Issuer {
  demand(options);
  return {
    variant: 'dummy',
    oid: VARIANTS.dummy.oid,
    issue: async (userData, nonce) =>
      toUtf8(JSON.stringify({ UserData: toBase64(userData), Nonce: toBase64(nonce) })),
  };
}

/** Accepts every document over the nonce. */
export function createDummyVerifier(options: Insecure): Verifier {
  demand(options);
  return {
    variant: 'dummy',
    oid: VARIANTS.dummy.oid,
    async verify(document, nonce) {
      if (document.length > MAX_DOCUMENT_BYTES) {
        throw new ParseError(`attestation document of ${document.length} bytes`);
      }
      const fields = parseJson(fromUtf8(document)) as { UserData?: unknown; Nonce?: unknown } | null;
      if (typeof fields?.UserData !== 'string' || typeof fields.Nonce !== 'string') {
        throw new ParseError('the attestation document lacks UserData or Nonce');
      }
      if (!equal(fromBase64(fields.Nonce), nonce)) {
        throw new VerificationError('ERR_NONCE', 'the document was made for another nonce');
      }
      const checks = [{ name: 'dummy', outcome: 'warning', detail: VARIANTS.dummy.trust }] as const;
      return {
        variant: 'dummy',
        userData: fromBase64(fields.UserData),
        checks,
        attestationKeyId: 'dummy',
        pcrs: new Map(),
      };
    },
  };
}
