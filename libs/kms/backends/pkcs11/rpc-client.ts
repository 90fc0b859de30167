import { isIP } from 'node:net';
import { connect, type SecureContext, type TLSSocket } from 'node:tls';
import { concat, zero } from '@asterism/bytes/bytes';
import { ParseError } from '@asterism/errors/errors';
import { KmsError, type KmsUnavailableError } from '../../errors.ts';
import { CallRefused, connectionFailure } from './failures.ts';
import {
  type CallName,
  encodeRequest,
  FRAME_HEADER_BYTES,
  PROTOCOL_VERSION,
  parseFrameHeader,
  parseResponse,
} from './rpc-message.ts';
import type { ValueReader, ValueWriter } from './rpc-values.ts';

/** More than an answer has: who sends it is cut off. */
const MAX_BUFFERED = 256 * 1024;
const KEEP_ALIVE_MS = 30_000;

export interface RpcServer {
  readonly host: string;
  readonly port: number;
  /** Name in its certificate; default: host. */
  readonly serverName: string | undefined;
  /** Our certificate, and whom to trust. */
  readonly identity: SecureContext;
}

/** One connection to `p11-kit remote`, over mutual TLS. One call at a time; after a failure it is closed for good. */
export class RpcClient {
  readonly where: string;
  readonly #socket: TLSSocket;
  #received: Uint8Array = new Uint8Array();
  #failure: KmsError | KmsUnavailableError | undefined;
  #wake: (() => void) | undefined;
  #lastCode = 0;

  private constructor(socket: TLSSocket, where: string) {
    this.#socket = socket;
    this.where = where;
    socket.on('data', (chunk) => {
      this.#received = concat(this.#received, chunk);
      zero(chunk);
      if (this.#received.length > MAX_BUFFERED)
        this.#fail(this.#nonsense(new ParseError('more than any answer has')));
      this.#wake?.();
    });
    const broken = (error: NodeJS.ErrnoException) => this.#fail(connectionFailure(error, where));
    socket.on('error', broken);
    socket.on('close', () => broken(new Error('the connection was closed')));
  }

  /**
   * @param signal ends the waiting, of this and of nothing later
   * @throws KmsUnavailableError | KmsError ERR_KMS_ANSWER, ERR_KMS_CREDENTIALS | the signal's reason
   */
  static async connect(server: RpcServer, signal: AbortSignal): Promise<RpcClient> {
    signal.throwIfAborted();
    const host = server.host.replace(/^\[|\]$/g, '');
    const name = server.serverName ?? host;
    const socket = connect({
      host,
      port: server.port,
      // Server Name Indication has no addresses (RFC 6066 section 3); what is compared then is the host.
      ...(isIP(name) === 0 && { servername: name }),
      secureContext: server.identity,
    });
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    // Not earlier: what is written before the certificate is judged may be sent before.
    socket.once('secureConnect', () => socket.write(Uint8Array.of(PROTOCOL_VERSION)));
    const client = new RpcClient(socket, `${server.host}:${server.port}`);
    try {
      const [version] = await client.#take(1, signal);
      if (version !== PROTOCOL_VERSION) throw client.#nonsense(new ParseError(`protocol version ${version}`));
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** Whether another call makes sense. */
  get usable(): boolean {
    return this.#failure === undefined;
  }

  /**
   * @param write the values of the request
   * @param read those of the answer; what it returns must be copies, they are zeroed afterwards
   * @throws CallRefused the function returned something else than CKR_OK
   * @throws KmsUnavailableError | KmsError ERR_KMS_ANSWER | the signal's reason; the connection is closed then
   */
  async call<T>(
    name: CallName,
    write: (values: ValueWriter) => void,
    read: (values: ValueReader) => T,
    signal: AbortSignal,
  ): Promise<T> {
    signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure;
    try {
      const code = ++this.#lastCode;
      if (this.#received.length > 0) throw new ParseError('an answer to nothing');
      const frame = encodeRequest(code, name, write);
      this.#socket.write(frame, () => zero(frame));
      const header = parseFrameHeader(await this.#take(FRAME_HEADER_BYTES, signal));
      if (header.code !== code) throw new ParseError(`an answer to call ${header.code}, not ${code}`);
      await this.#take(header.optionsBytes, signal);
      const body = await this.#take(header.bodyBytes, signal);
      try {
        const response = parseResponse(name, body);
        if ('failed' in response) throw new CallRefused(name, response.failed);
        const result = read(response.values);
        response.values.end();
        return result;
      } finally {
        zero(body);
      }
    } catch (error) {
      if (error instanceof CallRefused) throw error;
      const failure = error instanceof ParseError ? this.#nonsense(error) : error;
      // What answers this call may still come: nothing else can be asked here.
      this.close();
      throw failure;
    }
  }

  close(): void {
    this.#fail(connectionFailure(new Error('the connection was closed by us'), this.where));
  }

  #nonsense(cause: ParseError): KmsError {
    return new KmsError(
      'ERR_KMS_ANSWER',
      `${this.where} answers what makes no sense (${cause.message}); is it p11-kit 0.24?`,
      { cause },
    );
  }

  #fail(failure: KmsError | KmsUnavailableError): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    zero(this.#received);
    this.#received = new Uint8Array();
    this.#socket.destroy();
    this.#wake?.();
  }

  async #take(length: number, signal: AbortSignal): Promise<Uint8Array> {
    const onAbort = () => this.#wake?.();
    signal.addEventListener('abort', onAbort);
    try {
      while (this.#received.length < length) {
        signal.throwIfAborted();
        if (this.#failure !== undefined) throw this.#failure;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      const taken = this.#received.slice(0, length);
      const rest = this.#received.slice(length);
      zero(this.#received);
      this.#received = rest;
      return taken;
    } finally {
      this.#wake = undefined;
      signal.removeEventListener('abort', onAbort);
    }
  }
}

type Call = <T>(
  name: CallName,
  write: (values: ValueWriter) => void,
  read: (values: ValueReader) => T,
) => Promise<T>;

/** {@link RpcClient.call} for several calls that one signal ends. */
export function bind(client: RpcClient, signal: AbortSignal): Call {
  return (name, write, read) => client.call(name, write, read, signal);
}
