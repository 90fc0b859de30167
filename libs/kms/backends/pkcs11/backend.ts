import { createSecureContext, type SecureContext } from 'node:tls';
import { zero } from '@asterism/bytes/bytes';
import { checkEnvelopeKey } from '../../checks.ts';
import { KmsError, KmsUnavailableError } from '../../errors.ts';
import type { Kek, KekStatus, WrappedKey } from '../../kek.ts';
import { withRetry } from '../../retry.ts';
import type { Settings } from '../../settings.ts';
import { untilAborted } from '../../until-aborted.ts';
import { within } from '../../within.ts';
import { BOUND_KEY_BYTES, bindKey, unbindKey } from './bound-key.ts';
import { CallRefused, meaningOf } from './failures.ts';
import { RpcClient, type RpcServer } from './rpc-client.ts';
import { HsmSession, type KeyInHsm } from './session.ts';

const TIMEOUT_MS = 10_000;
/** AES key wrap (RFC 3394) of an envelope key with what it is for, see bound-key.ts. */
const MECHANISM = 1;
const WRAPPED_BYTES = BOUND_KEY_BYTES + 8;

/**
 * An AES key in an HSM, by way of p11-kit over mutual TLS. There is no code of a vendor in this process: p11-kit runs
 * where the HSM is.
 *
 * @param options for tests
 * @throws KmsError ERR_KMS_SETTINGS
 */
export async function open(settings: Settings, options: { readonly timeoutMs?: number } = {}): Promise<Kek> {
  const { host, port, tokenLabel, keyName, serverName } = settings.parameters;
  const { clientCertificate, clientKey, caCertificate, pin } = settings.credentials;
  if (host === undefined || port === undefined || tokenLabel === undefined || keyName === undefined)
    throw new KmsError('ERR_KMS_SETTINGS', 'the pkcs11 backend needs host, port, tokenLabel and keyName');
  if (!(Number(port) >= 1 && Number(port) <= 65_535))
    throw new KmsError('ERR_KMS_SETTINGS', 'the port of the pkcs11 backend is none');
  if (
    clientCertificate === undefined ||
    clientKey === undefined ||
    caCertificate === undefined ||
    pin === undefined
  )
    throw new KmsError(
      'ERR_KMS_SETTINGS',
      'the pkcs11 backend needs the credentials clientCertificate, clientKey, caCertificate and pin',
    );
  const identity = identityOf(clientCertificate, clientKey, caCertificate);
  const server = { host, port: Number(port), serverName, identity };
  // A file's last line end is not part of a PIN.
  const key = { tokenLabel, keyName, pin: pin.replace(/\r?\n$/, '') };
  return new HsmKek(server, key, options.timeoutMs ?? TIMEOUT_MS);
}

function identityOf(cert: string, key: string, ca: string): SecureContext {
  try {
    return createSecureContext({ cert, key, ca, minVersion: 'TLSv1.2' });
  } catch (cause) {
    throw new KmsError(
      'ERR_KMS_SETTINGS',
      'clientCertificate, clientKey or caCertificate is no PEM that can be read, or the key is of another certificate',
      { cause },
    );
  }
}

class HsmKek implements Kek {
  readonly #server: RpcServer;
  readonly #key: KeyInHsm;
  readonly #timeoutMs: number;
  #session: HsmSession | undefined;
  #last: Promise<void> = Promise.resolve();
  #pinRefused: KmsError | undefined;
  #closed = false;

  constructor(server: RpcServer, key: KeyInHsm, timeoutMs: number) {
    this.#server = server;
    this.#key = key;
    this.#timeoutMs = timeoutMs;
  }

  async wrap(key: Uint8Array, context: string, signal?: AbortSignal): Promise<WrappedKey> {
    checkEnvelopeKey(key);
    return this.#run(async (session, until) => {
      const bound = bindKey(key, context);
      try {
        const wrappedKey = await session.wrap(bound, until);
        if (wrappedKey.length !== WRAPPED_BYTES)
          throw new KmsError(
            'ERR_KMS_ANSWER',
            `the HSM at ${this.#where} wraps to ${wrappedKey.length} bytes, not ${WRAPPED_BYTES}`,
          );
        return { mechanism: MECHANISM, keyId: session.keyId, wrappedKey };
      } finally {
        zero(bound);
      }
    }, signal);
  }

  async unwrap(wrapped: WrappedKey, context: string | undefined, signal?: AbortSignal): Promise<Uint8Array> {
    if (
      wrapped.mechanism !== MECHANISM ||
      wrapped.wrappedKey.length !== WRAPPED_BYTES ||
      context === undefined
    )
      throw new KmsError(
        'ERR_KMS_UNWRAP',
        'the wrapped key was not made by this backend, or is damaged; restore it from a backup',
      );
    return this.#run(async (session, until) => {
      const bound = await session.unwrap(wrapped.wrappedKey, BOUND_KEY_BYTES, until);
      if (bound?.length !== BOUND_KEY_BYTES)
        throw new KmsError(
          'ERR_KMS_ANSWER',
          `the HSM at ${this.#where} unwraps something else than it wrapped`,
        );
      try {
        const key = unbindKey(bound, context);
        if (key === undefined)
          throw new KmsError('ERR_KMS_UNWRAP', 'the wrapped key was made for something else: it was swapped');
        return key;
      } finally {
        zero(bound);
      }
    }, signal);
  }

  async status(signal?: AbortSignal): Promise<KekStatus> {
    return this.#run(async (session, until) => {
      await session.check(until);
      return {
        keyId: session.keyId,
        enabled: true,
        detail: `AES-256 in the token ${this.#key.tokenLabel}, not extractable, by AES key wrap`,
      };
    }, signal);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#session?.close();
  }

  get #where(): string {
    return `${this.#server.host}:${this.#server.port}`;
  }

  /**
   * Work in a session, of which there is one, after the work of others. A second try meets a server that was started
   * anew, or a token that was put back.
   */
  #run<T>(work: (session: HsmSession, signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const policy = { tries: 2, deadlineMs: this.#timeoutMs + 50 };
    return withRetry((until) => this.#inTurn(() => this.#try(work, until), until), policy, signal);
  }

  async #inTurn<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const before = this.#last;
    let done = () => {};
    const mine = new Promise<void>((resolve) => {
      done = resolve;
    });
    this.#last = before.then(() => mine);
    try {
      await untilAborted(before, signal);
      return await work();
    } finally {
      done();
    }
  }

  async #try<T>(
    work: (session: HsmSession, signal: AbortSignal) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    if (this.#pinRefused !== undefined) throw this.#pinRefused;
    if (this.#closed) throw closed();
    const late = () =>
      new KmsUnavailableError(
        'ERR_KMS_UNAVAILABLE',
        `${this.#where} did not answer within ${this.#timeoutMs} ms; try again later`,
      );
    try {
      return await within(this.#timeoutMs, signal, late, async (until) =>
        work(await this.#open(until), until),
      );
    } catch (error) {
      const failure = error instanceof CallRefused ? meaningOf(error, this.#where) : error;
      if (failure instanceof KmsUnavailableError) this.#session?.close();
      if (error instanceof CallRefused && error.call === 'C_Login' && failure instanceof KmsError)
        this.#pinRefused = failure;
      throw failure;
    }
  }

  async #open(signal: AbortSignal): Promise<HsmSession> {
    if (this.#session?.usable) return this.#session;
    const client = await RpcClient.connect(this.#server, signal);
    try {
      const session = await HsmSession.open(client, this.#key, signal);
      if (this.#closed) throw closed();
      this.#session = session;
      return session;
    } catch (error) {
      client.close();
      throw error;
    }
  }
}

function closed(): KmsError {
  return new KmsError('ERR_KMS_SETTINGS', 'the pkcs11 backend is closed');
}
