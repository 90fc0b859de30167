import { VerificationError } from '@asterism/errors/errors';
import { createDummyIssuer, createDummyVerifier } from './dummy.ts';

export const name = 'attestation/dummy';

const nonce = new Uint8Array(32).fill(7);
const allowed = { allowInsecure: true };

export const seeds = [await createDummyIssuer(allowed).issue(new Uint8Array(32), nonce)];

/** Whatever the bytes, there is a verdict, ParseError or VerificationError. */
export async function run(input: Uint8Array): Promise<void> {
  try {
    await createDummyVerifier(allowed).verify(input, nonce);
  } catch (error) {
    if (!(error instanceof VerificationError)) throw error;
  }
}
