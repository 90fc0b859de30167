import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto';

/** A key pair for aTLS certificates. It lives in this process only. */
export interface Identity {
  readonly privateKey: KeyObject;
  /** PKCS#8 PEM of the private key, for TLS contexts. */
  readonly privateKeyPem: string;
  /** DER SubjectPublicKeyInfo. */
  readonly spki: Uint8Array;
  /** SHA-256 of `spki`: the user data that evidence vouches for. 32 bytes. */
  readonly userData: Uint8Array;
}

export function newIdentity(): Identity {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }));
  return {
    privateKey,
    privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    spki,
    userData: new Uint8Array(createHash('sha256').update(spki).digest()),
  };
}

const MAX_USES = 256;
const MAX_AGE_MS = 60_000;

/**
 * Hands out key pairs, each for at most 256 handshakes within one minute.
 *
 * Sharing is sound: evidence is made per handshake over the peer's fresh nonce, TLS keys come from an ephemeral
 * exchange (forward secrecy does not rest on this key), and the private key never leaves the process. It spares
 * most handshakes the price of a key pair. The bounds keep a stolen key worthless soon.
 */
export class IdentitySource {
  #identity: Identity | undefined;
  #uses = 0;
  #madeAt = 0;

  next(): Identity {
    const now = performance.now();
    if (this.#identity === undefined || this.#uses >= MAX_USES || now - this.#madeAt >= MAX_AGE_MS) {
      this.#identity = newIdentity();
      this.#madeAt = now;
      this.#uses = 0;
    }
    this.#uses++;
    return this.#identity;
  }
}
