import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { UnreachableError } from '@asterism/errors/errors';
import { type Deadline, remainingMs } from './deadline.ts';
import type { Transport } from './transport.ts';
import { ResponseBuffer } from './transport-response.ts';

/** Opens swtpm's unix socket of raw TPM commands. */
export async function openSocket(path: string, deadline: Deadline): Promise<Transport> {
  // swtpm serves one connection, and the kernel lets only one or two more wait. Everybody else gets EAGAIN at once
  // and tries again; the pause is random so that no process of the machine is always the later one.
  for (;;) {
    const outcome = await tryConnect(path, deadline);
    if (typeof outcome !== 'string') return new SocketTransport(outcome, path);
    if (outcome !== 'EAGAIN') {
      throw new UnreachableError(`no TPM at ${path}: ${outcome}`, { code: 'ERR_TPM_UNREACHABLE' });
    }
    if (remainingMs(deadline) === 0) throw late(path);
    await delay(1 + Math.random() * 4);
  }
}

function tryConnect(path: string, deadline: Deadline): Promise<Socket | string> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    const timer = setTimeout(() => socket.destroy(new Error('timed out')), remainingMs(deadline));
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      resolve(error.code ?? error.message);
    });
  });
}

function late(path: string): UnreachableError {
  return new UnreachableError(`the TPM at ${path} did not answer in time: is another client keeping it?`, {
    code: 'ERR_TPM_TIMEOUT',
  });
}

class SocketTransport implements Transport {
  readonly #socket: Socket;
  readonly #path: string;
  #response = new ResponseBuffer();
  #waiting: { resolve(response: Uint8Array): void; reject(error: Error): void } | undefined;
  #failure: Error | undefined;

  constructor(socket: Socket, path: string) {
    this.#socket = socket;
    this.#path = path;
    socket.on('data', (piece: Uint8Array) => this.#onData(piece));
    socket.on('error', (cause) => this.#fail(this.#broken(cause.message, cause)));
    socket.on('close', () => this.#fail(this.#broken('it closed the connection')));
  }

  #broken(why: string, cause?: unknown): UnreachableError {
    return new UnreachableError(`the TPM at ${this.#path} failed: ${why}`, {
      cause,
      code: 'ERR_TPM_UNREACHABLE',
    });
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(this.#failure);
    this.#socket.destroy();
  }

  #onData(piece: Uint8Array): void {
    try {
      const response = this.#response.add(piece);
      if (response !== undefined) this.#waiting?.resolve(response);
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  async transmit(command: Uint8Array, deadline: Deadline): Promise<Uint8Array> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#response = new ResponseBuffer();
    const timer = setTimeout(() => this.#fail(late(this.#path)), remainingMs(deadline));
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting = { resolve, reject };
        this.#socket.write(command);
      });
    } finally {
      clearTimeout(timer);
      this.#waiting = undefined;
    }
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#socket.closed) {
        resolve();
        return;
      }
      this.#socket.once('close', () => resolve());
      this.#socket.destroy();
    });
  }
}
