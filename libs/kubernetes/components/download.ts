import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import * as http from 'node:http';
import * as https from 'node:https';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { UnreachableError } from '@asterism/errors/errors';

const TIMEOUT_MS = 600_000;
const MAX_REDIRECTS = 5;

export interface DownloadOptions {
  readonly signal: AbortSignal;
  /** More is refused. */
  readonly maxBytes: number;
  /** What to do where the address cannot be reached; ends the message. */
  readonly advice: string;
}

/**
 * Saves what an address answers, through the proxy that the environment names. Says nothing of whether it is the right
 * file: the caller compares its hash. Nothing is left when it fails.
 * @throws UnreachableError no answer, another status than 2xx, cut off, or more than `maxBytes`
 */
export async function download(url: string, to: string, options: DownloadOptions): Promise<void> {
  const { signal, maxBytes, advice } = options;
  const limit = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  try {
    const response = await answerOf(new URL(url), limit);
    let length = 0;
    const bounded = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        length += chunk.length;
        done(length > maxBytes ? new Error(`more than ${maxBytes} bytes`) : null, chunk);
      },
    });
    await pipeline(response, bounded, createWriteStream(to), { signal: limit });
  } catch (cause) {
    await rm(to, { force: true });
    signal.throwIfAborted();
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new UnreachableError(`cannot download ${url} (${why}); ${advice}`, { cause });
  }
}

/** Not with fetch: it takes a proxy for all of the process, whose other requests are to nodes, which no proxy reaches. */
async function answerOf(url: URL, signal: AbortSignal, redirects = 0): Promise<http.IncomingMessage> {
  const { request: start, Agent } = url.protocol === 'https:' ? https : http;
  const request = start(url, { agent: new Agent({ proxyEnv: process.env }), signal });
  // After the answer the body's reader is told, too.
  request.on('error', () => {});
  request.end();
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  const { statusCode = 0, headers } = response;
  if (statusCode >= 200 && statusCode < 300) return response;
  response.destroy();
  if (statusCode < 300 || statusCode >= 400 || headers.location === undefined)
    throw new Error(`HTTP status ${statusCode}`);
  if (redirects === MAX_REDIRECTS) throw new Error(`more than ${MAX_REDIRECTS} redirects`);
  return answerOf(new URL(headers.location, url), signal, redirects + 1);
}
