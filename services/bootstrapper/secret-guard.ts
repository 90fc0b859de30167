import { fromUtf8 } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import { StatusError } from '@asterism/rpc/status';
import { compare } from 'bcryptjs';

export interface SecretGuardOptions {
  /** Wrong attempts that are compared before the guard makes callers wait. Default 9. */
  readonly freeAttempts?: number;
  /** First wait in milliseconds; doubled with each further wrong attempt. Default 10,000. */
  readonly firstWaitMs?: number;
  /** Longest wait in milliseconds: whoever knows the secret is kept out no longer. Default 300,000. */
  readonly maxWaitMs?: number;
  /** Milliseconds on a clock that never goes back. */
  readonly now?: () => number;
}

/** bcrypt reads no more than this many bytes. */
const MAX_SECRET = 72;

/**
 * Checks the init secret. After too many wrong attempts it answers without comparing until a wait is over, so
 * that guessing is slow and costs the node nothing. One comparison runs at a time: bcrypt is slow by design, and
 * callers in parallel must neither multiply their attempts nor take the node's processor.
 */
export class SecretGuard {
  readonly #hash: string;
  readonly #options: Required<SecretGuardOptions>;
  #failures = 0;
  #blockedUntil = 0;
  #comparing = false;

  /** @param hash bcrypt, as the provider's metadata has it; an empty one is refused */
  constructor(hash: string, options: SecretGuardOptions = {}) {
    if (!/^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$/.test(hash)) {
      throw new AsterismError(
        'ERR_INIT_SECRET_HASH',
        'the metadata holds no bcrypt hash of an init secret: without one anybody could initialise this node',
      );
    }
    this.#hash = hash;
    this.#options = {
      freeAttempts: options.freeAttempts ?? 9,
      firstWaitMs: options.firstWaitMs ?? 10_000,
      maxWaitMs: options.maxWaitMs ?? 300_000,
      now: options.now ?? (() => performance.now()),
    };
  }

  /** @throws StatusError UNAUTHENTICATED wrong secret; RESOURCE_EXHAUSTED too many attempts */
  async check(secret: Uint8Array): Promise<void> {
    const wait = this.#blockedUntil - this.#options.now();
    if (wait > 0) {
      throw new StatusError(
        'RESOURCE_EXHAUSTED',
        'ERR_INIT_SECRET_THROTTLED',
        `too many wrong init secrets: try again in ${Math.ceil(wait / 1000)} s`,
      );
    }
    if (this.#comparing) {
      throw new StatusError(
        'RESOURCE_EXHAUSTED',
        'ERR_INIT_SECRET_BUSY',
        'another init secret is being checked: try again in a second',
      );
    }
    this.#comparing = true;
    try {
      if (await this.#matches(secret)) {
        this.#failures = 0;
        return;
      }
    } finally {
      this.#comparing = false;
    }
    this.#failures++;
    const { freeAttempts, firstWaitMs, maxWaitMs, now } = this.#options;
    if (this.#failures >= freeAttempts) {
      const doublings = Math.min(this.#failures - freeAttempts, 30);
      this.#blockedUntil = now() + Math.min(firstWaitMs * 2 ** doublings, maxWaitMs);
    }
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
