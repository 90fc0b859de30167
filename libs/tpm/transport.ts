import { type FileHandle, open } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { ParseError, UnreachableError } from '@asterism/errors/errors';

/** Carries one command to a TPM and its response back. One command at a time. */
export interface Transport {
  /** @throws UnreachableError when the TPM does not answer within `timeoutMs` */
  transmit(command: Uint8Array, timeoutMs: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

const HEADER = 10;
const MAX_RESPONSE = 8192;

/**
 * Opens `swtpm:/path/of/socket` or `device:/dev/tpmrm0`.
 * @throws ParseError the address has another form
 * @throws UnreachableError
 */
export function openTransport(address: string, timeoutMs: number): Promise<Transport> {
  const [kind, path] = [address.slice(0, address.indexOf(':')), address.slice(address.indexOf(':') + 1)];
  if (kind === 'swtpm' && path.startsWith('/')) return openSocket(path, timeoutMs);
  if (kind === 'device' && path.startsWith('/')) return openDevice(path);
  throw new ParseError(`TPM address ${address} is neither swtpm:/PATH nor device:/PATH`, {
    code: 'ERR_TPM_ADDRESS',
  });
}

async function openSocket(path: string, timeoutMs: number): Promise<Transport> {
  const socket = await new Promise<Socket>((resolve, reject) => {
    const candidate = connect({ path });
    const timer = setTimeout(() => candidate.destroy(new Error('timed out')), timeoutMs);
    candidate.once('connect', () => {
      clearTimeout(timer);
      candidate.removeAllListeners('error');
      resolve(candidate);
    });
    candidate.once('error', (cause) => {
      clearTimeout(timer);
      reject(
        new UnreachableError(`no TPM at ${path}: ${cause.message}`, { cause, code: 'ERR_TPM_UNREACHABLE' }),
      );
    });
  });
  return new SocketTransport(socket, path);
}

class SocketTransport implements Transport {
  readonly #socket: Socket;
  readonly #path: string;
  #received = new Uint8Array();
  #waiting: { resolve(response: Uint8Array): void; reject(error: Error): void } | undefined;
  #failure: UnreachableError | undefined;

  constructor(socket: Socket, path: string) {
    this.#socket = socket;
    this.#path = path;
    socket.on('data', (chunk: Uint8Array) => this.#onData(chunk));
    socket.on('error', (cause) => this.#fail(`the TPM at ${path} failed: ${cause.message}`, cause));
    socket.on('close', () => this.#fail(`the TPM at ${path} closed the connection`));
  }

  #fail(message: string, cause?: unknown): void {
    this.#failure ??= new UnreachableError(message, { cause, code: 'ERR_TPM_UNREACHABLE' });
    this.#waiting?.reject(this.#failure);
    this.#waiting = undefined;
  }

  #onData(chunk: Uint8Array): void {
    const all = new Uint8Array(this.#received.length + chunk.length);
    all.set(this.#received);
    all.set(chunk, this.#received.length);
    this.#received = all;
    if (all.length < HEADER) return;
    const size = new DataView(all.buffer).getUint32(2);
    if (size < HEADER || size > MAX_RESPONSE) {
      this.#fail(`the TPM at ${this.#path} answered with ${size} bytes`);
      return;
    }
    if (all.length < size) return;
    this.#received = all.slice(size);
    this.#waiting?.resolve(all.slice(0, size));
    this.#waiting = undefined;
  }

  transmit(command: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#fail(
          `the TPM at ${this.#path} did not answer within ${timeoutMs} ms (is another client using it?)`,
        );
        this.#socket.destroy();
      }, timeoutMs);
      this.#waiting = {
        resolve: (response) => {
          clearTimeout(timer);
          resolve(response);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      };
      this.#socket.write(command);
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#socket.destroyed) {
        resolve();
        return;
      }
      this.#socket.once('close', () => resolve());
      this.#socket.destroy();
    });
  }
}

async function openDevice(path: string): Promise<Transport> {
  let file: FileHandle;
  try {
    file = await open(path, 'r+');
  } catch (cause) {
    throw new UnreachableError(`no TPM at ${path}`, { cause, code: 'ERR_TPM_UNREACHABLE' });
  }
  return {
    async transmit(command, timeoutMs) {
      await file.write(command, 0, command.length, null);
      const response = new Uint8Array(MAX_RESPONSE);
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () => reject(new UnreachableError(`the TPM at ${path} did not answer within ${timeoutMs} ms`)),
          timeoutMs,
        );
      });
      try {
        const { bytesRead } = await Promise.race([file.read(response, 0, response.length, null), late]);
        return response.slice(0, bytesRead);
      } finally {
        clearTimeout(timer);
      }
    },
    close: () => file.close(),
  };
}
