import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as WebReadableStream } from 'node:stream/web';
import { UnreachableError } from '@asterism/errors/errors';

const TIMEOUT_MS = 600_000;

export interface DownloadOptions {
  readonly signal: AbortSignal;
  /** More is refused. */
  readonly maxBytes: number;
  /** What to do where the address cannot be reached; ends the message. */
  readonly advice: string;
}

/**
 * Saves what an address answers. Says nothing of whether it is the right file: the caller compares its hash. Nothing
 * is left when it fails.
 * @throws UnreachableError no answer, another status than 2xx, cut off, or more than `maxBytes`
 */
export async function download(url: string, to: string, options: DownloadOptions): Promise<void> {
  const { signal, maxBytes, advice } = options;
  try {
    const response = await fetch(url, { signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]) });
    if (!response.ok || response.body === null) {
      await response.body?.cancel();
      throw new Error(`HTTP status ${response.status}`);
    }
    let length = 0;
    const bounded = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        length += chunk.length;
        done(length > maxBytes ? new Error(`more than ${maxBytes} bytes`) : null, chunk);
      },
    });
    const body = Readable.fromWeb(response.body as WebReadableStream<Uint8Array>);
    await pipeline(body, bounded, createWriteStream(to));
  } catch (cause) {
    await rm(to, { force: true });
    signal.throwIfAborted();
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new UnreachableError(`cannot download ${url} (${why}); ${advice}`, { cause });
  }
}
