import type { Agent as HttpAgent, RequestOptions } from 'node:http';
import { request as requestHttp } from 'node:http';
import { Agent, request as requestHttps } from 'node:https';
import { urlToHttpOptions } from 'node:url';
import { printable } from '@asterism/bytes/printable';
import { boundedText } from '@asterism/runtime/bounded-text';
import { isCertificateError } from '../../certificate-errors.ts';
import { KmsError, KmsUnavailableError } from '../../errors.ts';
import { withRetry } from '../../retry.ts';
import { errorsOf, parseBody } from './answers.ts';

const TIMEOUT_MS = 10_000;
const MAX_ANSWER_BYTES = 256 * 1024;
const MAX_CONNECTIONS = 8;
const TRIES = 3;
/** A proxy's or the server's own: not now. 472 and 473 are standbys that do not forward, 500 one that lost its leader. */
const UNAVAILABLE = new Set([412, 472, 473, 500, 502, 503, 504]);

export interface VaultRequest {
  readonly method: 'GET' | 'POST';
  /** Behind `/v1/`. */
  readonly path: string;
  readonly token?: string;
  readonly body?: Readonly<Record<string, string>>;
}

export interface VaultAnswer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  /** What the server says went wrong, for a person; '' where it says nothing, or repeats what we sent. */
  readonly said: string;
}

/** JSON over HTTPS to OpenBao or Vault. */
export class VaultClient {
  readonly #base: URL;
  readonly #server: RequestOptions;
  readonly #prefix: string;
  readonly #namespace: string | undefined;
  readonly #timeoutMs: number;
  readonly #agent: Agent | undefined;

  /** @param base https, or http to this machine; endpoint.ts has judged it */
  constructor(
    base: URL,
    options: {
      readonly ca?: string | undefined;
      readonly namespace?: string | undefined;
      readonly timeoutMs?: number;
    },
  ) {
    this.#base = base;
    const { hostname, port, auth } = urlToHttpOptions(base);
    this.#server = { hostname, port, auth };
    this.#prefix = `${base.href.replace(/\/$/, '')}/v1/`;
    this.#namespace = options.namespace;
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#agent =
      base.protocol === 'https:'
        ? new OneServer({
            keepAlive: true,
            maxSockets: MAX_CONNECTIONS,
            minVersion: 'TLSv1.2',
            ...(options.ca !== undefined && { ca: options.ca }),
          })
        : undefined;
  }

  get host(): string {
    return this.#base.host;
  }

  /**
   * Nothing that is asked here changes the server, so what was refused for now is asked again, all in all for as long
   * as one exchange may take.
   *
   * @returns any answer but those that say: later
   * @throws KmsUnavailableError | KmsError ERR_KMS_ANSWER | the signal's reason
   */
  send(request: VaultRequest, signal: AbortSignal | undefined): Promise<VaultAnswer> {
    const policy = { tries: TRIES, deadlineMs: this.#timeoutMs, who: this.host };
    return withRetry((until) => this.#sendOnce(request, until), policy, signal);
  }

  async #sendOnce(request: VaultRequest, signal: AbortSignal): Promise<VaultAnswer> {
    const { status, text, retryAfterMs } = await this.#exchange(request, signal);
    let body: VaultAnswer['body'] | undefined;
    let cause: unknown;
    try {
      body = parseBody(text);
    } catch (error) {
      cause = error;
    }
    const said = body === undefined ? '' : withoutSecrets(errorsOf(body), request);
    if (status === 429 || UNAVAILABLE.has(status))
      throw new KmsUnavailableError(
        status === 429 ? 'ERR_KMS_THROTTLED' : 'ERR_KMS_UNAVAILABLE',
        `${this.host} answers ${status}${said === '' ? '' : `, ${said}`}; try again later`,
        retryAfterMs === undefined ? {} : { retryAfterMs },
      );
    if (body === undefined)
      throw new KmsError(
        'ERR_KMS_ANSWER',
        `${this.host} answers ${status} with something else than JSON; is it OpenBao or Vault?`,
        { cause },
      );
    if (status >= 300 && status < 400)
      throw new KmsError(
        'ERR_KMS_ANSWER',
        `${this.host} sends us elsewhere (${status}), which is not followed; set address to where the active node answers`,
      );
    return { status, body, said };
  }

  #exchange(request: VaultRequest, signal: AbortSignal): Promise<Raw> {
    const payload = request.body === undefined ? undefined : JSON.stringify(request.body);
    return new Promise((resolve, reject) => {
      const fail = (cause: Error) => reject(signal.aborted ? signal.reason : this.#failure(cause));
      const send = this.#agent === undefined ? requestHttp : requestHttps;
      const { pathname, search } = new URL(this.#prefix + request.path);
      const outgoing = send(
        {
          ...this.#server,
          path: pathname + search,
          method: request.method,
          agent: this.#agent as HttpAgent | undefined,
          headers: {
            accept: 'application/json',
            // Servers may demand it, so that a browser cannot be made to ask.
            'x-vault-request': 'true',
            ...(request.token !== undefined && { 'x-vault-token': request.token }),
            ...(this.#namespace !== undefined && { 'x-vault-namespace': this.#namespace }),
            ...(payload !== undefined && {
              'content-type': 'application/json',
              'content-length': Buffer.byteLength(payload),
            }),
          },
        },
        (response) => {
          boundedText(response, MAX_ANSWER_BYTES).then(
            (text) =>
              resolve({
                status: response.statusCode ?? 0,
                text,
                retryAfterMs: retryAfterOf(response.headers['retry-after']),
              }),
            fail,
          );
        },
      );
      outgoing.on('error', fail);
      // The option `signal` would do the same with a dozen listeners for each request.
      signal.addEventListener('abort', () => outgoing.destroy(signal.reason), { once: true });
      outgoing.end(payload);
    });
  }

  #failure(cause: Error): Error {
    if (isCertificateError(cause))
      return new KmsError(
        'ERR_KMS_ANSWER',
        `the certificate of ${this.host} is not to be trusted (${cause.message}); check address and caCertificate`,
        { cause },
      );
    return new KmsUnavailableError(
      'ERR_KMS_UNAVAILABLE',
      `${this.host} cannot be reached, or broke off; try again later`,
      { cause },
    );
  }

  close(): void {
    this.#agent?.destroy();
  }
}

/** Its connections are all the same; the name that an Agent makes up for each request lists every option of TLS. */
class OneServer extends Agent {
  override getName(): string {
    return '';
  }
}

interface Raw {
  readonly status: number;
  readonly text: string;
  readonly retryAfterMs: number | undefined;
}

/** Of a Retry-After in seconds (RFC 9110 section 10.2.3); dates are not sent by these servers. */
function retryAfterOf(header: string | undefined): number | undefined {
  return header !== undefined && /^\d{1,5}$/.test(header) ? Number(header) * 1000 : undefined;
}

/** A server that repeats our credentials or keys does not get them into our logs. */
function withoutSecrets(said: string, { token, body }: VaultRequest): string {
  const sent = [token, ...Object.values(body ?? {})];
  if (sent.some((value) => value !== undefined && value !== '' && said.includes(value))) return '';
  return printable(said, 300);
}
