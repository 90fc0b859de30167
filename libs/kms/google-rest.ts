import { randomInt, X509Certificate } from 'node:crypto';
import { open as openFile } from 'node:fs/promises';
import { Agent } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import { fromUtf8 } from '@asterism/bytes/encoding';
import { parseJson } from '@asterism/bytes/json';
import { chosenEndpoint } from './endpoint.ts';
import { KmsError, KmsUnavailableError } from './errors.ts';
import { serviceAccountTokens } from './google-account-tokens.ts';
import { exchange, type HttpAnswer, type HttpRequest, type Service } from './google-http.ts';
import { machineTokens } from './google-machine-tokens.ts';
import type { TokenOptions, Tokens } from './google-tokens.ts';
import type { Settings } from './settings.ts';

const TIMEOUT_MS = 10_000;
const TRIES = 3;
const FIRST_WAIT_MS = 200;
const MAX_CONNECTIONS = 16;
const MAX_KEY_BYTES = 16_384;

export interface GoogleRestOptions {
  readonly service: Service;
  /** Where the service is unless the settings name an endpoint. */
  readonly base: string;
  /** OAuth 2.0 scope: the least that does. */
  readonly scope: string;
  readonly timeoutMs?: number | undefined;
}

export interface GoogleRequest extends Omit<HttpRequest, 'url'> {
  /** From the first slash, with its query. */
  readonly path: string;
}

/** A REST API of Google Cloud with the credentials of the settings. */
export interface GoogleRest {
  /** For messages. */
  readonly host: string;
  /**
   * What was refused for now (throttled, or broken off) is asked twice more, all in all for as long as one exchange may
   * take: what hung is not. A token that is refused is replaced once.
   *
   * @returns any answer but 401, 403, 408, 429 and 5xx
   * @throws KmsUnavailableError
   * @throws KmsError ERR_*_CREDENTIALS | ERR_*_DENIED | ERR_*_ANSWER
   * @throws the signal's reason
   */
  call(request: GoogleRequest, signal?: AbortSignal): Promise<HttpAnswer>;
  close(): void;
}

/** @throws KmsError ERR_*_SETTINGS | ERR_*_CREDENTIALS */
export async function openGoogleRest(settings: Settings, options: GoogleRestOptions): Promise<GoogleRest> {
  const { service, base, scope, timeoutMs = TIMEOUT_MS } = options;
  const endpoint = chosenEndpoint(settings.parameters.endpoint, settings, service);
  const { caCertificate } = settings.credentials;
  if (caCertificate !== undefined) checkAuthority(caCertificate, endpoint, service);
  const root = (endpoint?.href ?? base).replace(/\/$/, '');
  const host = new URL(root).host;
  const { projectID: projectId = '' } = settings.parameters;
  const tokens = await tokensOf(settings, { service, scope, timeoutMs, projectId, caCertificate });
  const agent = new Agent({
    keepAlive: true,
    maxSockets: MAX_CONNECTIONS,
    minVersion: 'TLSv1.2',
    ...(caCertificate !== undefined && { ca: caCertificate }),
  });

  const once = async (
    request: GoogleRequest,
    ends: number,
    signal: AbortSignal | undefined,
  ): Promise<HttpAnswer> => {
    for (let fresh = false; ; fresh = true) {
      const token = await tokens.get(signal);
      const headers = { ...request.headers, authorization: `Bearer ${token}` };
      const url = root + request.path;
      const left = Math.max(1, Math.ceil(ends - performance.now()));
      const limits = { service, agent, timeoutMs: left, signal };
      const answer = await exchange({ ...request, url, headers }, limits);
      if (answer.status === 403)
        throw new KmsError(
          `ERR_${service}_DENIED`,
          `${host} does not allow it (${statusOf(answer)}): see docs/keys/gcp.md for the permissions that are needed`,
        );
      if (answer.status !== 401) return answer;
      tokens.forget(token);
      if (fresh)
        throw new KmsError(
          `ERR_${service}_CREDENTIALS`,
          `${host} refuses the access token (${statusOf(answer)}), and a new one too`,
        );
    }
  };
  return {
    host,
    async call(request, signal) {
      const ends = performance.now() + timeoutMs;
      for (let tried = 1; ; tried++) {
        signal?.throwIfAborted();
        try {
          return await once(request, ends, signal);
        } catch (error) {
          if (!(error instanceof KmsUnavailableError) || tried === TRIES) throw error;
          const wait = waitMs(tried, error.retryAfterMs);
          if (performance.now() + wait >= ends) throw error;
          await delay(wait, undefined, signal && { signal }).catch(() => {});
        }
      }
    },
    close: () => agent.destroy(),
  };
}

/** With jitter, so that those who were sent away together do not come back together. */
function waitMs(tried: number, askedMs = 0): number {
  const backoff = FIRST_WAIT_MS * 2 ** (tried - 1);
  return askedMs + randomInt(backoff / 2, backoff);
}

/** @returns for a message: HTTP status, and Google's name for it, which is all that is passed on of an error */
export function statusOf(answer: HttpAnswer): string {
  const name = errorName(answer);
  return name === undefined ? String(answer.status) : `${answer.status} ${name}`;
}

/** `error.status` of an answer, e.g. INVALID_ARGUMENT (google.rpc.Code). */
export function errorName({ bytes }: HttpAnswer): string | undefined {
  try {
    const { error } = parseJson(fromUtf8(bytes)) as { error?: { status?: unknown } };
    const name = error?.status;
    return typeof name === 'string' && /^[A-Z_]{1,40}$/.test(name) ? name : undefined;
  } catch {
    return undefined;
  }
}

function checkAuthority(pem: string, endpoint: URL | undefined, service: Service): void {
  const refuse = (why: string) => new KmsError(`ERR_${service}_SETTINGS`, `caCertificate ${why}`);
  if (endpoint === undefined)
    throw refuse("is for an endpoint of your own; Google's is signed by public authorities");
  try {
    new X509Certificate(pem);
  } catch {
    throw refuse('is no certificate');
  }
}

async function tokensOf({ parameters, credentials }: Settings, options: TokenOptions): Promise<Tokens> {
  const { credentialsPath } = parameters;
  if (credentials.serviceAccountKey !== undefined)
    return serviceAccountTokens(credentials.serviceAccountKey, options);
  if (credentialsPath !== undefined)
    return serviceAccountTokens(await readKeyFile(credentialsPath, options.service), options);
  return machineTokens(options);
}

async function readKeyFile(path: string, service: Service): Promise<string> {
  try {
    await using file = await openFile(path);
    const buffer = Buffer.alloc(MAX_KEY_BYTES + 1);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
    const text = buffer.toString('utf8', 0, bytesRead);
    buffer.fill(0);
    return text;
  } catch (cause) {
    throw new KmsError(`ERR_${service}_CREDENTIALS`, `the service account key ${path} cannot be read`, {
      cause,
    });
  }
}
