import type { Issuer } from '@asterism/attestation/types';
import { toUtf8 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import type { API } from '@asterism/rpc/gen/verify_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import type { RateLimiter } from '@asterism/runtime/rate-limiter';
import { Counter, type Registry } from 'prom-client';

/** What every document of this service vouches for: nothing but that it was made for verification. */
const USER_DATA = toUtf8('VerifyService');
/** The TPM binds a hash of the nonce; a longer one than this has no use. */
const MAX_NONCE = 64;
const NONCE_BYTES = 32;

/** Makes evidence for anyone, within limits: the TPM is slow and shared. */
export class Attester {
  readonly #issuer: Issuer;
  readonly #limiter: RateLimiter;
  readonly #requests: Counter;

  constructor(issuer: Issuer, limiter: RateLimiter, registry: Registry) {
    this.#issuer = issuer;
    this.#limiter = limiter;
    this.#requests = new Counter({
      name: 'asterism_verification_requests_total',
      help: 'Requests for evidence',
      labelNames: ['outcome'],
      registers: [registry],
    });
  }

  /**
   * @param address who asks
   * @throws ParseError | RateLimitError | AsterismError ERR_ISSUER_BUSY
   */
  async attest(nonce: Uint8Array, address: string, signal?: AbortSignal): Promise<Uint8Array> {
    try {
      this.#limiter.take(address);
      if (nonce.length !== NONCE_BYTES) {
        throw new ParseError(
          `the nonce has ${Math.min(nonce.length, MAX_NONCE)} bytes, ${NONCE_BYTES} are needed`,
          { code: 'ERR_NONCE_LENGTH' },
        );
      }
      const document = await this.#issuer.issue(USER_DATA, nonce, signal);
      this.#requests.inc({ outcome: 'answered' });
      return document;
    } catch (error) {
      this.#requests.inc({ outcome: 'refused' });
      throw error;
    }
  }
}

/** Handlers of verify.API. */
export function verificationService(attester: Attester): Handlers<typeof API> {
  return {
    async getAttestation({ nonce }, { peer, signal }) {
      return { attestation: await attester.attest(nonce, peer.address, signal) };
    },
  };
}
