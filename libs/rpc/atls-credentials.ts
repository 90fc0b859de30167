import type { Socket } from 'node:net';
import { type AtlsHandshakeOptions, handshakeAtls } from '@asterism/atls/client';
import type { Verdict } from '@asterism/attestation/types';
import { AsterismError, UnreachableError, VerificationError } from '@asterism/errors/errors';
import { CallCredentials, ChannelCredentials } from '@grpc/grpc-js';
import { readGoAway } from './go-away.ts';

// The one file that knows grpc-js from within: a channel asks its credentials, by a method with an underscore, to
// secure a TCP socket. There is no public way to do that asynchronously. atls-credentials.test.ts fails when a
// version of grpc-js calls it differently; the version is pinned in package.json.

/** What grpc-js 1.14 wants of a connector. */
interface SecureConnector {
  connect(socket: Socket): Promise<{ socket: Socket; secure: boolean }>;
  waitForReady(): Promise<void>;
  getCallCredentials(): CallCredentials;
  destroy(): void;
}

/** Milliseconds that a client with evidence waits for the server's first word: it may refuse the evidence. */
const FIRST_WORD_MS = 30_000;

/**
 * Credentials for exactly one aTLS connection. A second one is refused, so that what was learnt of the peer
 * (`peer`) holds for every call.
 */
export class AtlsCredentials extends ChannelCredentials {
  readonly #options: AtlsHandshakeOptions;
  #started = false;
  /** The verdict once the connection stands. */
  peer: { readonly verdict: Verdict | undefined } | undefined;
  /** Why there is no connection. */
  failure: AsterismError | undefined;

  constructor(options: AtlsHandshakeOptions) {
    super();
    this.#options = options;
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(
    _target: unknown,
    _options: unknown,
    callCredentials?: CallCredentials,
  ): SecureConnector {
    const credentials = callCredentials ?? CallCredentials.createEmpty();
    return {
      connect: (socket) => this.#connect(socket),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => credentials,
      destroy: () => {},
    };
  }

  async #connect(raw: Socket): Promise<{ socket: Socket; secure: boolean }> {
    if (this.#started) {
      raw.destroy();
      // grpc-js tries the next address of a name when the first does not stand within 250 ms: that one goes on.
      if (this.peer === undefined && this.failure === undefined)
        throw new UnreachableError('another address is being tried', { code: 'ERR_ATLS_BUSY' });
      this.failure ??= new UnreachableError(
        'the connection to the verified peer has ended; make a new client',
        { code: 'ERR_ATLS_ENDED' },
      );
      throw this.failure;
    }
    this.#started = true;
    try {
      const { socket, peer } = await handshakeAtls(raw, this.#options);
      // In TLS 1.3 the server judges our certificate after the handshake looks done from here. A gRPC server that
      // accepts us speaks first (SETTINGS), so its first word tells.
      if (this.#options.issuer !== undefined) await accepted(socket);
      this.peer = { verdict: peer };
      return { socket, secure: true };
    } catch (error) {
      this.failure =
        error instanceof AsterismError
          ? error
          : new UnreachableError('the aTLS handshake failed', { cause: error });
      throw this.failure;
    }
  }
}

/** Waits for the server's first bytes and leaves them in the socket for HTTP/2. */
async function accepted(socket: Socket): Promise<void> {
  const first = await firstBytes(socket);
  const reason = first === undefined ? 'it closed the connection after the handshake' : readGoAway(first);
  if (first !== undefined && reason === undefined) {
    socket.unshift(first);
    return;
  }
  socket.destroy();
  throw new VerificationError(
    'ERR_ATLS_REFUSED',
    `the server refused this machine's evidence (${reason}); its log says why`,
  );
}

/** Undefined when the connection closes first. */
function firstBytes(socket: Socket): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const done = () => {
      clearTimeout(timer);
      socket.removeListener('readable', readable);
      socket.removeListener('close', closed);
    };
    const readable = () => {
      const bytes: Buffer | null = socket.read();
      if (bytes === null) return;
      done();
      resolve(bytes);
    };
    const closed = () => {
      done();
      resolve(undefined);
    };
    const timer = setTimeout(() => {
      done();
      socket.destroy();
      reject(
        new UnreachableError('the server said nothing after the handshake', { code: 'ERR_ATLS_TIMEOUT' }),
      );
    }, FIRST_WORD_MS);
    socket.on('readable', readable);
    socket.once('close', closed);
  });
}
