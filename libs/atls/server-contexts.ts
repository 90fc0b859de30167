import { createSecureContext, type SecureContext } from 'node:tls';
import { pem } from './der.ts';
import type { Identity } from './identity.ts';

// The one file that knows node:tls from within. A context made by the documented createSecureContext costs a quarter
// of a handshake; the object below it (`context.context`) has setters that Node itself uses and does not document.
// server-contexts.test.ts fails when a version of Node changes them; Node is pinned in package.json. Only the key,
// the certificate and the list of authorities of such a context are used in a handshake: versions, ciphers and
// options are those of the server's own context.

interface NativeContext {
  init(protocol: undefined, minVersion: number, maxVersion: number): void;
  setKey(pem: string, passphrase: undefined): void;
  setCert(pem: string): void;
  addCACert(pem: string): void;
}

const TLS_1_2 = 0x0303;
const TLS_1_3 = 0x0304;

/** Contexts that hold the certificate of one handshake. */
export class ServerContexts {
  #identity: Identity | undefined;
  #context: SecureContext | undefined;

  /**
   * For a handshake in which no evidence is asked for: one context per key pair, whose certificate is replaced.
   * OpenSSL copies it into the connection as soon as SNICallback's callback is called, so the caller must do that
   * before it lets anything else run.
   */
  oneWay(identity: Identity, certificate: Uint8Array): SecureContext {
    const cert = pem('CERTIFICATE', certificate);
    if (this.#context === undefined || this.#identity !== identity) {
      this.#context = createSecureContext({ key: identity.privateKeyPem, cert, ca: [] });
      this.#identity = identity;
    } else {
      native(this.#context).setCert(cert);
    }
    return this.#context;
  }

  /** For a handshake that asks for evidence: a context of its own, because authorities cannot be taken out again. */
  mutual(identity: Identity, certificate: Uint8Array, nonceCaPem: string): SecureContext {
    const context = new Native();
    context.init(undefined, TLS_1_2, TLS_1_3);
    context.setKey(identity.privateKeyPem, undefined);
    context.setCert(pem('CERTIFICATE', certificate));
    context.addCACert(nonceCaPem);
    return { context };
  }
}

function native({ context }: SecureContext): NativeContext {
  return context as NativeContext;
}

const Native = createSecureContext({ ca: [] }).context.constructor as new () => NativeContext;
