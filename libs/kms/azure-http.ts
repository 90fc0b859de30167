import { request as httpRequest } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';

/** Milliseconds for one exchange, from the first byte of the connection to the last of the answer. */
export const EXCHANGE_MS = 10_000;

/** Largest answer that is read, in bytes. A page of a listing is the largest that there is to ask for. */
const MAX_ANSWER_BYTES = 1024 * 1024;

const MAX_SOCKETS = 32;

/** The other side was not reached (or not in time), or what it says is no answer. Its message holds no secrets. */
export class ExchangeError extends Error {
  readonly reason: 'unreachable' | 'answer';

  constructor(reason: 'unreachable' | 'answer', message: string) {
    super(message);
    this.name = 'ExchangeError';
    this.reason = reason;
  }
}

/** A request as the SDKs' pipelines hand it to their HTTP client. */
export interface Outgoing {
  readonly url: string;
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly timeoutMs?: number;
  /** Of the SDK, where the environment names a proxy. */
  readonly agent?: unknown;
  readonly signal?: SignalLike | undefined;
}

export interface Answer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** What an AbortSignal and the SDKs' own kind have in common. */
interface SignalLike {
  readonly aborted: boolean;
  addEventListener(type: 'abort', listener: () => void): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

export interface AzureHttp {
  exchange(outgoing: Outgoing): Promise<Answer>;
  close(): void;
}

/**
 * HTTP for the Azure SDKs. Their own client reads answers of any size, unpacks them, follows redirections, and has no
 * time-out once the headers came.
 *
 * @param mayCall the addresses that it calls; everything else is refused, whatever an answer or a blob says
 * @param ca PEM of the authority of the other side instead of the public ones
 */
export function azureHttp(mayCall: (url: URL) => boolean, ca?: string): AzureHttp {
  const agent = new Agent({ keepAlive: true, maxSockets: MAX_SOCKETS, ...(ca !== undefined && { ca }) });
  return {
    exchange: (outgoing) => exchange(outgoing, mayCall, agent, ca),
    close: () => agent.destroy(),
  };
}

function exchange(
  outgoing: Outgoing,
  mayCall: (url: URL) => boolean,
  own: Agent,
  ca: string | undefined,
): Promise<Answer> {
  const url = new URL(outgoing.url);
  if (!mayCall(url))
    throw new ExchangeError('answer', `${url.origin} is none of the addresses that may be called`);
  const body = bytesOf(outgoing.body);
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(outgoing.headers))
    if (!/^(accept-encoding|content-length)$/i.test(name)) headers[name] = value;
  if (body !== undefined || /^(PUT|POST)$/.test(outgoing.method))
    headers['Content-Length'] = String(body?.length ?? 0);

  return new Promise((resolve, reject) => {
    const secure = url.protocol === 'https:';
    const request = (secure ? httpsRequest : httpRequest)(url, {
      method: outgoing.method,
      headers,
      agent: (outgoing.agent as Agent | undefined) ?? (secure ? own : undefined),
      ...(secure && { ca, minVersion: 'TLSv1.2' as const }),
    });
    const fail = (error: Error) => {
      settle();
      request.destroy();
      reject(error);
    };
    const onAbort = () => fail(new ExchangeError('unreachable', 'the call was ended'));
    const limit = Math.min(outgoing.timeoutMs || EXCHANGE_MS, EXCHANGE_MS);
    const timer = setTimeout(
      () => fail(new ExchangeError('unreachable', `${url.host} did not answer in ${limit} ms`)),
      limit,
    );
    const settle = () => {
      clearTimeout(timer);
      outgoing.signal?.removeEventListener('abort', onAbort);
    };
    if (outgoing.signal?.aborted) {
      request.on('error', () => {});
      return onAbort();
    }
    outgoing.signal?.addEventListener('abort', onAbort);

    // It stays for all that comes late: an error without a listener would end the process.
    request.on('error', (error) => fail(connectionError(url.host, error)));
    request.once('response', (response) => {
      const status = response.statusCode ?? 0;
      response.on('error', (error) => fail(connectionError(url.host, error)));
      if (status < 200 || (status >= 300 && status < 400))
        return fail(
          new ExchangeError('answer', `${url.host} answered ${status}: redirections are not followed`),
        );
      const encoding = response.headers['content-encoding'];
      if (encoding !== undefined && encoding !== 'identity')
        return fail(new ExchangeError('answer', `${url.host} answered in an encoding nobody asked for`));
      const parts: Buffer[] = [];
      let length = 0;
      response.on('data', (part: Buffer) => {
        length += part.length;
        if (length > MAX_ANSWER_BYTES)
          return fail(
            new ExchangeError('answer', `${url.host} answered more than ${MAX_ANSWER_BYTES} bytes`),
          );
        parts.push(part);
      });
      response.once('end', () => {
        settle();
        resolve({ status, headers: flat(response.headers), body: Buffer.concat(parts) });
      });
    });
    request.end(body);
  });
}

function flat(headers: NodeJS.Dict<string | string[]>): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    const first = Array.isArray(value) ? value[0] : value;
    if (first !== undefined) found[name] = first;
  }
  return found;
}

function bytesOf(body: unknown): Buffer | undefined {
  if (body === undefined || body === null) return undefined;
  if (typeof body === 'string') return Buffer.from(body);
  if (ArrayBuffer.isView(body)) return Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  throw new ExchangeError('answer', 'only bodies that are in memory are sent');
}

/** The certificate of the other side is not what it should be, or it speaks something else than HTTP. */
const WRONG_SERVER =
  /^(HPE_|CERT_|ERR_TLS_|ERR_SSL_|EPROTO|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|HOSTNAME_MISMATCH|INVALID_)/;

function connectionError(host: string, error: Error): ExchangeError {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const said = /^[A-Z0-9_]{1,64}$/.test(code) ? code : 'connection failed';
  return WRONG_SERVER.test(code)
    ? new ExchangeError('answer', `${host} is not the server it should be, or speaks no HTTP (${said})`)
    : new ExchangeError('unreachable', `${host} cannot be reached (${said})`);
}
