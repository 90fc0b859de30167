import { createHash, type Hash } from 'node:crypto';
import { messageHash } from './messages.ts';
import type { Suite } from './record-protection.ts';

/** The running hash over a handshake's messages (RFC 8446 4.4.1). */
export class Transcript {
  #before: Uint8Array[] = [];
  #hash: Hash | undefined;

  add(message: Uint8Array): void {
    if (this.#hash === undefined) this.#before.push(message);
    else this.#hash.update(message);
  }

  /** The hash function is known once the ServerHello is. */
  start(suite: Suite): void {
    const hash = createHash(suite.hash);
    for (const message of this.#before) hash.update(message);
    this.#before = [];
    this.#hash = hash;
  }

  /** After a HelloRetryRequest the first ClientHello counts as its hash. */
  retry(suite: Suite): void {
    const hash = createHash(suite.hash);
    for (const message of this.#before) hash.update(message);
    this.#before = [messageHash(hash.digest())];
  }

  /** Hash of all messages so far. Only after `start`. */
  digest(): Uint8Array {
    return this.#hash!.copy().digest();
  }
}
