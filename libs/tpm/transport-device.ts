import { type FileHandle, open } from 'node:fs/promises';
import { UnreachableError } from '@asterism/errors/errors';
import { type Deadline, remainingMs } from './deadline.ts';
import type { Transport } from './transport.ts';
import { MAX_RESPONSE, ResponseBuffer } from './transport-response.ts';

/** Opens a character device such as /dev/tpmrm0 (the kernel's resource manager: any number of users). */
export async function openDevice(path: string): Promise<Transport> {
  try {
    return new DeviceTransport(await open(path, 'r+'), path);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new UnreachableError(`no TPM at ${path}: ${why}`, { cause, code: 'ERR_TPM_UNREACHABLE' });
  }
}

class DeviceTransport implements Transport {
  readonly #file: FileHandle;
  readonly #path: string;
  #pending: Promise<unknown> | undefined;

  constructor(file: FileHandle, path: string) {
    this.#file = file;
    this.#path = path;
  }

  async transmit(command: Uint8Array, deadline: Deadline): Promise<Uint8Array> {
    const exchange = this.#exchange(command);
    this.#pending = exchange;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () =>
          reject(
            new UnreachableError(`the TPM at ${this.#path} did not answer in time`, {
              code: 'ERR_TPM_TIMEOUT',
            }),
          ),
        remainingMs(deadline),
      );
    });
    try {
      const response = await Promise.race([exchange, late]);
      this.#pending = undefined;
      return response;
    } finally {
      clearTimeout(timer);
    }
  }

  async #exchange(command: Uint8Array): Promise<Uint8Array> {
    try {
      await this.#file.write(command, 0, command.length, null);
      const buffer = new ResponseBuffer();
      const piece = new Uint8Array(MAX_RESPONSE);
      for (;;) {
        const { bytesRead } = await this.#file.read(piece, 0, piece.length, null);
        if (bytesRead === 0) throw new Error('end of file');
        const response = buffer.add(piece.subarray(0, bytesRead));
        if (response !== undefined) return response;
      }
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new UnreachableError(`the TPM at ${this.#path} failed: ${why}`, {
        cause,
        code: 'ERR_TPM_UNREACHABLE',
      });
    }
  }

  async close(): Promise<void> {
    // A read that came too late cannot be cancelled: the file is closed when it ends, and nobody waits for that.
    if (this.#pending !== undefined) {
      void this.#pending.catch(() => {}).then(() => this.#file.close());
      return;
    }
    await this.#file.close();
  }
}
