import type { Check } from '@asterism/errors/errors';

/** Makes evidence on the machine that it speaks of. */
export interface Issuer {
  /** Name of the variant, e.g. `qemu-vtpm`. */
  readonly variant: string;
  /** Dotted OID of the certificate extension that carries this variant's documents. */
  readonly oid: string;
  /**
   * @param userData what the evidence shall vouch for: in aTLS the SHA-256 of the SubjectPublicKeyInfo (32 bytes)
   * @param nonce the other party's nonce (32 bytes)
   * @returns the attestation document, at most 60,000 bytes
   */
  issue(userData: Uint8Array, nonce: Uint8Array, signal?: AbortSignal): Promise<Uint8Array>;
}

/** What a verifier found. It exists only where every enforced check passed. */
export interface Verdict {
  readonly variant: string;
  /** The user data that the evidence vouches for. The caller compares it with what it expects. */
  readonly userData: Uint8Array;
  /** Every check in the order made, warnings among them. */
  readonly checks: readonly Check[];
  /** A name for the machine's attestation key: hex SHA-256 of its public area. For audit and for binding. */
  readonly attestationKeyId: string;
  /** SHA-256 PCRs (index -> 32 bytes) of the verified quote; empty where the variant has none. */
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
}

/** Judges evidence. Implementations hold no per-call state. */
export interface Verifier {
  readonly variant: string;
  readonly oid: string;
  /**
   * @throws ParseError the document is malformed
   * @throws VerificationError a signature or binding does not hold (`checks` lists what was looked at)
   * @throws PolicyError genuine, but measurements differ from the expected ones
   */
  verify(document: Uint8Array, nonce: Uint8Array, signal?: AbortSignal): Promise<Verdict>;
}
