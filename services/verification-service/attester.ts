import type { Issuer } from '@asterism/attestation/types';
import { toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError, ParseError, UnreachableError } from '@asterism/errors/errors';
import type { RateLimiter } from '@asterism/runtime/rate-limiter';
import { Counter, type Registry } from 'prom-client';

/** What every document of this service vouches for: nothing but that it was made for verification. */
const USER_DATA = toUtf8('VerifyService');
/**
 * The quote binds SHA-256(user data || nonce) without saying where one ends. In aTLS both have 32 bytes; with at most
 * 32 bytes after these 13 no caller can have anything made that reads as the evidence of a handshake.
 */
const MAX_NONCE = 32;
const ISSUE_TIMEOUT_MS = 10_000;

/** Makes evidence for anyone, within limits: the TPM is slow and shared. */
export class Attester {
  readonly #issuer: Issuer;
  readonly #limiter: RateLimiter;
  readonly #requests: Counter;

  /** @param limiter by address */
  constructor(issuer: Issuer, limiter: RateLimiter, registry: Registry) {
    this.#issuer = issuer;
    this.#limiter = limiter;
    this.#requests = new Counter({
      name: 'asterism_verification_requests_total',
      help: 'Requests for evidence',
      labelNames: ['outcome', 'reason'],
      registers: [registry],
    });
  }

  /**
   * @param nonce 1 to 32 bytes; whoever wants proof that the evidence is fresh takes 32 random ones
   * @param address who asks
   * @throws ParseError | BusyError | UnreachableError | AsterismError
   */
  async attest(nonce: Uint8Array, address: string, signal?: AbortSignal): Promise<Uint8Array> {
    try {
      this.#limiter.take(address);
      if (nonce.length < 1 || nonce.length > MAX_NONCE) {
        throw new ParseError(`the nonce has ${nonce.length} bytes; 1 to ${MAX_NONCE} are allowed`, {
          code: 'ERR_NONCE_LENGTH',
        });
      }
      const limit = AbortSignal.timeout(ISSUE_TIMEOUT_MS);
      const given = signal === undefined ? limit : AbortSignal.any([signal, limit]);
      const document = await unlessAborted(given, this.#issuer.issue(USER_DATA, nonce, given), () =>
        limit.aborted
          ? new UnreachableError(`no evidence within ${ISSUE_TIMEOUT_MS} ms`, { code: 'ERR_TPM_TIMEOUT' })
          : new AsterismError('ERR_CALLER_GONE', 'the caller did not wait'),
      );
      this.#requests.inc({ outcome: 'answered', reason: '' });
      return document;
    } catch (error) {
      const reason = error instanceof AsterismError ? error.code : 'unexpected';
      this.#requests.inc({ outcome: 'refused', reason });
      throw error;
    }
  }
}

/** An issuer looks at its signal between commands only; a TPM that says nothing would be waited for longer. */
function unlessAborted<T>(signal: AbortSignal, work: Promise<T>, why: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(why()), { once: true });
    work.then(resolve, (error) => reject(signal.aborted ? why() : error));
  });
}
