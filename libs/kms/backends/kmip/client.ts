import { randomBytes } from 'node:crypto';
import { zero } from '@asterism/bytes/bytes';
import { ParseError } from '@asterism/errors/errors';
import { KmsError, KmsUnavailableError } from '../../errors.ts';
import { Connection, type Server } from './connection.ts';
import { answerFailure, KmipRefusal } from './failures.ts';
import { decodeAnswer, encodeRequest, type KmipVersion, type Request } from './messages.ts';
import type { Operation } from './operations.ts';

const EXCHANGE_TIMEOUT_MS = 10_000;

export interface KmipClientOptions extends Server {
  readonly version: KmipVersion;
  readonly login: Request['login'];
}

/**
 * Client of one KMIP server: one connection, one request at a time (servers may work on pipelined requests in any
 * order). All operations that it is made for may be repeated.
 */
export class KmipClient {
  readonly #options: KmipClientOptions;
  #connection: Connection | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: KmipClientOptions) {
    this.#options = options;
  }

  /**
   * Carries out an operation. It ends within 10 seconds, with the time for its turn and for connecting.
   *
   * @throws KmipRefusal the server refuses it
   * @throws KmsError | KmsUnavailableError
   * @throws the signal's reason
   */
  async call<T>(operation: Operation<T>, signal?: AbortSignal): Promise<T> {
    const { where } = this.#options;
    const limit = AbortSignal.timeout(EXCHANGE_TIMEOUT_MS);
    const either = signal === undefined ? limit : AbortSignal.any([signal, limit]);
    try {
      return await this.#inTurn(either, () => this.#exchange(operation, either));
    } catch (error) {
      if (!limit.aborted || error !== limit.reason) throw error;
      const late = `${where} did not answer within ${EXCHANGE_TIMEOUT_MS / 1000} seconds`;
      throw new KmsUnavailableError('ERR_KMS_UNAVAILABLE', late, { cause: error });
    }
  }

  /** Ends the connection; calls that wait fail. */
  close(): void {
    this.#closed = true;
    this.#connection?.close();
  }

  async #inTurn<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => {
      signal.throwIfAborted();
      return work();
    });
    this.#last = turn.catch(() => {});
    return unlessAborted(turn, signal);
  }

  async #exchange<T>(operation: Operation<T>, signal: AbortSignal): Promise<T> {
    const { version, login, where } = this.#options;
    const { name, payload } = operation;
    const request: Request = {
      version,
      operation: name,
      id: randomBytes(8),
      payload,
      ...(login && { login }),
    };
    const sent = encodeRequest(request);
    let received: Uint8Array | undefined;
    try {
      received = await this.#deliver(sent, signal);
      const answer = decodeAnswer(received, request);
      if (!answer.succeeded) throw new KmipRefusal(name, answer.reason, withoutLogin(answer.message, login));
      return operation.read(answer.payload);
    } catch (error) {
      if (!(error instanceof ParseError)) throw error;
      this.#connection?.close();
      throw answerFailure(error, where);
    } finally {
      zero(sent, received ?? new Uint8Array());
    }
  }

  async #deliver(request: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const kept = this.#connection;
    if (kept?.usable) {
      try {
        return await kept.exchange(request, signal);
      } catch (error) {
        // A server may end a connection that was idle in the very moment it is used again.
        if (signal.aborted || !(error instanceof KmsUnavailableError)) throw error;
      }
    }
    const connection = await this.#connect(signal);
    return connection.exchange(request, signal);
  }

  async #connect(signal: AbortSignal): Promise<Connection> {
    const closed = () => new KmsError('ERR_KMS_SETTINGS', `the client of ${this.#options.where} was closed`);
    if (this.#closed) throw closed();
    const connection = await Connection.open(this.#options, signal);
    this.#connection = connection;
    if (!this.#closed) return connection;
    connection.close();
    throw closed();
  }
}

/** The result of work that goes on without us when the signal aborts. @throws the signal's reason */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  let leave = () => {};
  const aborted = new Promise<never>((_, reject) => {
    leave = () => reject(signal.reason);
    if (signal.aborted) leave();
    signal.addEventListener('abort', leave, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', leave);
  }
}

/** A server that repeats in its message what we logged in with is not quoted. */
function withoutLogin(message: string, login: Request['login']): string {
  const secrets = [login?.username, login?.password].filter((secret) => secret !== undefined);
  return secrets.some((secret) => message.includes(secret)) ? '' : message;
}
