import { isIP } from 'node:net';
import { checkServerIdentity, connect, type SecureContext, type TLSSocket } from 'node:tls';
import { ParseError } from '@asterism/errors/errors';
import { KmsUnavailableError } from '../../errors.ts';
import { answerFailure, connectionFailure } from './failures.ts';
import { Incoming } from './framing.ts';

/** A connection that nobody used for so long is closed: firewalls forget such ones without a word. */
const IDLE_MS = 60_000;
const KEEP_ALIVE_MS = 20_000;

export interface Server {
  readonly host: string;
  readonly port: number;
  /** Name or address that the certificate must be for. */
  readonly serverName: string;
  /** With the authority, our certificate and its key. */
  readonly secureContext: SecureContext;
  /** The server, for a person. */
  readonly where: string;
}

interface Waiting {
  done(answer?: Uint8Array): void;
  failed(error: unknown): void;
  readonly incoming: Incoming | undefined;
}

/** One TLS connection to a KMIP server, for one request at a time. After any failure it is closed. */
export class Connection {
  readonly #socket: TLSSocket;
  #waiting: Waiting | undefined;
  /** Why it is over. */
  #failure: { readonly error: unknown } | undefined;

  /** @throws KmsError | KmsUnavailableError | the signal's reason */
  static async open(server: Server, signal: AbortSignal): Promise<Connection> {
    const { host, port, serverName, secureContext, where } = server;
    const socket = connect({
      host,
      port,
      secureContext,
      rejectUnauthorized: true,
      // RFC 6066 section 3: no addresses. The certificate is compared with the name in either case.
      servername: isIP(serverName) ? '' : serverName,
      checkServerIdentity: (_, certificate) => checkServerIdentity(serverName, certificate),
    });
    const connection = new Connection(socket, where);
    await connection.#wait(signal, undefined, (done) => socket.once('secureConnect', done));
    return connection;
  }

  private constructor(socket: TLSSocket, where: string) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.setTimeout(IDLE_MS, () => this.close());
    socket.on('error', (error) => {
      // Why the certificate of the server was refused; the handshake ended with it.
      const identity = socket.authorizationError ? error.message : undefined;
      this.#end(connectionFailure(error, identity, where));
    });
    socket.on('close', () => this.#end(connectionClosed(where)));
    socket.on('end', () => this.#end(connectionClosed(where)));
    socket.on('data', (chunk: Buffer) => {
      try {
        if (this.#waiting?.incoming === undefined) throw new ParseError('an answer that nobody asked for');
        const answer = this.#waiting.incoming.push(chunk);
        if (answer !== undefined) this.#settled()?.done(answer);
      } catch (error) {
        this.#end(answerFailure(error, where));
      }
    });
  }

  get usable(): boolean {
    return this.#failure === undefined;
  }

  /**
   * Sends a request and waits for its answer.
   * @throws KmsError | KmsUnavailableError | the signal's reason
   */
  async exchange(request: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const answer = await this.#wait(signal, new Incoming(), () => this.#socket.write(request));
    return answer!;
  }

  close(): void {
    this.#end(new KmsUnavailableError('ERR_KMS_UNAVAILABLE', 'the connection was closed'));
  }

  async #wait(
    signal: AbortSignal,
    incoming: Incoming | undefined,
    start: (done: () => void) => void,
  ): Promise<Uint8Array | undefined> {
    signal.throwIfAborted();
    // It may have ended between two waits: a server's refusal of our certificate comes after the handshake of TLS 1.3.
    if (this.#failure !== undefined) throw this.#failure.error;
    // An answer that comes later would be taken for that of the next request: the connection ends.
    const onAbort = () => this.#end(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await new Promise<Uint8Array | undefined>((resolve, reject) => {
        this.#waiting = { incoming, done: resolve, failed: reject };
        start(() => this.#settled()?.done());
      });
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #settled(): Waiting | undefined {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    return waiting;
  }

  #end(error: unknown): void {
    this.#failure ??= { error };
    this.#socket.destroy();
    const waiting = this.#settled();
    waiting?.incoming?.wipe();
    waiting?.failed(error);
  }
}

const connectionClosed = (where: string) =>
  new KmsUnavailableError('ERR_KMS_UNAVAILABLE', `${where} closed the connection`);
