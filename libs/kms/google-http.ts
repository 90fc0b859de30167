import { type Agent as HttpAgent, type IncomingHttpHeaders, request as requestHttp } from 'node:http';
import { type Agent, request as requestHttps } from 'node:https';
import type { Readable } from 'node:stream';
import { isCertificateError } from './certificate-errors.ts';
import { KmsError, KmsUnavailableError } from './errors.ts';

/** Whose errors they are. */
export type Service = 'KMS' | 'STORE';

export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** https, or http to this machine. */
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** More than this is an error. */
  readonly maxBytes: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: Uint8Array;
}

export interface HttpOptions {
  readonly service: Service;
  /** For https. */
  readonly agent: Agent;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * One exchange; a redirect is an answer like any other and is not followed.
 *
 * @throws KmsUnavailableError it cannot be reached, broke off, was late, or is throttling (408, 429, 5xx)
 * @throws KmsError ERR_KMS_ANSWER | ERR_STORE_ANSWER the answer is too large, or its certificate is not to be trusted
 * @throws the signal's reason
 */
export async function exchange(request: HttpRequest, options: HttpOptions): Promise<HttpAnswer> {
  const { service } = options;
  options.signal?.throwIfAborted();
  const answer = await send(request, options);
  const { status, headers } = answer;
  if (status !== 408 && status !== 429 && status < 500) return answer;
  const retryAfterMs = retryAfterOf(headers['retry-after']);
  throw new KmsUnavailableError(
    status === 429 ? `ERR_${service}_THROTTLED` : `ERR_${service}_UNAVAILABLE`,
    `${hostOf(request)} answers ${status}; try again later`,
    retryAfterMs === undefined ? {} : { retryAfterMs },
  );
}

class TooLargeError extends Error {}

function send(request: HttpRequest, options: HttpOptions): Promise<HttpAnswer> {
  const { service, agent, timeoutMs, signal } = options;
  const timeout = AbortSignal.timeout(timeoutMs);
  return new Promise((resolve, reject) => {
    const fail = (cause: Error) => {
      if (signal?.aborted) reject(signal.reason);
      else reject(failure(cause, hostOf(request), service, timeout.aborted ? timeoutMs : undefined));
    };
    const https = request.url.startsWith('https:');
    const outgoing = (https ? requestHttps : requestHttp)(
      request.url,
      {
        method: request.method,
        ...(https && { agent: agent as HttpAgent }),
        signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
        headers: {
          ...request.headers,
          ...(request.body !== undefined && { 'content-length': request.body.length }),
        },
      },
      (response) => {
        bounded(response, request.maxBytes).then(
          (bytes) => resolve({ status: response.statusCode ?? 0, headers: response.headers, bytes }),
          fail,
        );
      },
    );
    outgoing.on('error', fail);
    outgoing.end(request.body);
  });
}

function failure(cause: Error, host: string, service: Service, lateMs: number | undefined): Error {
  const answer = `ERR_${service}_ANSWER` as const;
  if (cause instanceof TooLargeError)
    return new KmsError(answer, `the answer of ${host} is too large: is it what the settings say?`, {
      cause,
    });
  if (isCertificateError(cause))
    return new KmsError(
      answer,
      `the certificate of ${host} is not to be trusted (${cause.message}); check endpoint and caCertificate`,
      { cause },
    );
  const what =
    lateMs === undefined ? 'cannot be reached, or broke off' : `did not answer within ${lateMs} ms`;
  return new KmsUnavailableError(`ERR_${service}_UNAVAILABLE`, `${host} ${what}; try again later`, { cause });
}

function bounded(stream: Readable, maxBytes: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    stream.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > maxBytes) stream.destroy(new TooLargeError(`more than ${maxBytes} bytes`));
      else chunks.push(chunk);
    });
    stream.on('error', reject);
    stream.on('end', () => {
      const bytes = new Uint8Array(length);
      let at = 0;
      for (const chunk of chunks) {
        bytes.set(chunk, at);
        at += chunk.length;
        // It may be a key: the caller zeroes the one copy that is left.
        chunk.fill(0);
      }
      resolve(bytes);
    });
  });
}

function hostOf({ url }: HttpRequest): string {
  return new URL(url).host;
}

/** Milliseconds: of a number of seconds or of a date (RFC 9110 section 10.2.3). */
function retryAfterOf(header: string | undefined): number | undefined {
  if (header === undefined || header.length > 40) return undefined;
  if (/^\d{1,5}$/.test(header)) return Number(header) * 1000;
  const at = /GMT$/.test(header) ? Date.parse(header) : Number.NaN;
  return Number.isNaN(at) ? undefined : Math.min(Math.max(0, at - Date.now()), 99_999_000);
}
