import { fromUtf8 } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import { StatusError } from '@asterism/rpc/status';
import { AttemptLimiter, type AttemptLimits } from '@asterism/runtime/attempt-limiter';
import { FairTurns } from '@asterism/runtime/fair-turns';
import { compare } from 'bcryptjs';

/** The tenth wrong secret in a row of one caller is not compared any more. */
const LIMITS: AttemptLimits = { freeAttempts: 9, firstWaitMs: 10_000, maxWaitMs: 300_000 };

/** bcrypt reads no more than this many bytes. */
const MAX_SECRET = 72;

/**
 * Checks the init secret. After too many wrong attempts of one caller it answers it without comparing until a wait is
 * over, so that guessing is slow and costs the node nothing; no caller can keep another from being heard. One
 * comparison runs at a time, and each caller has one place in the line for it: bcrypt is slow by design, and callers in
 * parallel must neither multiply their attempts nor take the node's processor.
 */
export class SecretGuard {
  readonly #hash: string;
  readonly #limiter: AttemptLimiter;
  readonly #turns = new FairTurns();

  /** @param hash bcrypt, as the provider's metadata has it; an empty one is refused */
  constructor(hash: string, limits: Partial<AttemptLimits> = {}) {
    if (!/^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$/.test(hash)) {
      throw new AsterismError(
        'ERR_INIT_SECRET_HASH',
        'the metadata holds no bcrypt hash of an init secret: without one anybody could initialise this node',
      );
    }
    this.#hash = hash;
    this.#limiter = new AttemptLimiter({ ...LIMITS, ...limits });
  }

  /**
   * @param address the caller's, by which its mistakes are counted
   * @throws StatusError UNAUTHENTICATED wrong secret; RESOURCE_EXHAUSTED too many attempts
   * @throws BusyError another comparison for this caller is under way, or too many callers wait for theirs
   */
  async check(secret: Uint8Array, address: string): Promise<void> {
    const wait = this.#limiter.waitMs(address);
    if (wait > 0) {
      throw new StatusError(
        'RESOURCE_EXHAUSTED',
        'ERR_INIT_SECRET_THROTTLED',
        `too many wrong init secrets from your address: try again in ${Math.ceil(wait / 1000)} s`,
      );
    }
    if (await this.#turns.take(address, () => this.#matches(secret))) {
      this.#limiter.succeeded(address);
      return;
    }
    this.#limiter.failed(address);
    throw new StatusError(
      'UNAUTHENTICATED',
      'ERR_INIT_SECRET',
      'invalid init secret: it is in the workspace that created this machine',
    );
  }

  async #matches(secret: Uint8Array): Promise<boolean> {
    if (secret.length === 0 || secret.length > MAX_SECRET) return false;
    let text: string;
    try {
      text = fromUtf8(secret);
    } catch {
      return false;
    }
    return compare(text, this.#hash);
  }
}
