import { pipeline, type Readable, Transform } from 'node:stream';
import { chosenEndpoint } from '../../endpoint.ts';
import { KmsError, KmsUnavailableError } from '../../errors.ts';
import type { Settings } from '../../settings.ts';
import { failure } from './failure.ts';

/** For one call, with all tries of the SDK, the search for credentials and the body of the answer. */
const CALL_TIMEOUT_MS = 10_000;
/** Less, so that an address that is dead leaves time for another. */
const CONNECT_TIMEOUT_MS = 3_000;
/** The wait that a throttling server may ask for between two fits into the time of the call. */
const TRIES = 2;
const QUIET = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

/** What the clients of AWS KMS and of S3 are made with, checked. */
export interface ConnectionOptions {
  readonly region: string;
  readonly maxAttempts: number;
  readonly retryMode: 'standard';
  readonly requestHandler: object;
  readonly endpoint?: string;
  readonly credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string };
}

/**
 * @param service which errors: of a KMS or of a store
 * @throws KmsError ERR_KMS_SETTINGS or ERR_STORE_SETTINGS half of the credentials, or an endpoint that must not be used
 */
export function connectionOptions(settings: Settings, service: 'KMS' | 'STORE'): ConnectionOptions {
  const { accessKeyID, accessKey, sessionToken, caCertificate } = settings.credentials;
  if ((accessKeyID === undefined) !== (accessKey === undefined) || (sessionToken && accessKey === undefined))
    throw new KmsError(
      `ERR_${service}_SETTINGS`,
      'AWS credentials are accessKeyID and accessKey together (and sessionToken for a temporary session), or none of them',
    );
  const endpoint = chosenEndpoint(settings.parameters.endpoint, settings, service);
  return {
    region: settings.parameters.region!,
    maxAttempts: TRIES,
    retryMode: 'standard',
    requestHandler: {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      requestTimeout: CALL_TIMEOUT_MS,
      socketTimeout: CALL_TIMEOUT_MS,
      throwOnRequestTimeout: true,
      logger: QUIET,
      httpsAgent: caCertificate === undefined ? {} : { ca: caCertificate },
    },
    ...(endpoint && { endpoint: endpoint.href }),
    ...(accessKeyID !== undefined &&
      accessKey !== undefined && {
        credentials: {
          accessKeyId: accessKeyID,
          secretAccessKey: accessKey,
          ...(sessionToken !== undefined && { sessionToken }),
        },
      }),
  };
}

interface Exchange {
  readonly request: unknown;
}
interface Answer {
  readonly response: unknown;
}

/**
 * A middleware around the HTTP of a client, at its innermost place. The SDK takes endpoints from the environment and
 * from the machine's AWS files too, plain ones as well, and collects answers of any size.
 *
 * @param maxBytes of a body, also of errors
 */
export function guardHttp(
  service: 'KMS' | 'STORE',
  { endpoint }: ConnectionOptions,
  maxBytes: number,
): <A, R extends Answer>(next: (exchange: A) => Promise<R>) => (exchange: A) => Promise<R> {
  return (next) => async (exchange) => {
    const { protocol, hostname } = (exchange as Exchange).request as { protocol: string; hostname: string };
    if (protocol !== 'https:' && endpoint === undefined)
      throw new KmsError(
        `ERR_${service}_SETTINGS`,
        `the environment names ${hostname} as endpoint without TLS: keys and credentials would travel in the clear`,
      );
    const answer = await next(exchange);
    const response = answer.response as { body?: Readable };
    if (response.body !== undefined) response.body = limited(response.body, service, maxBytes);
    return answer;
  };
}

/** Where {@link guardHttp} belongs. */
export const INNERMOST = { step: 'deserialize', priority: 'low', name: 'asterismGuardHttp' } as const;

function limited(body: Readable, service: 'KMS' | 'STORE', maxBytes: number): Readable {
  let left = maxBytes;
  const gate = new Transform({
    transform(chunk: Uint8Array, _encoding, done) {
      left -= chunk.length;
      if (left >= 0) done(null, chunk);
      else done(new KmsError(`ERR_${service}_ANSWER`, `AWS answers more than ${maxBytes} bytes`));
    },
  });
  // Errors of the body reach whoever reads the gate.
  pipeline(body, gate, () => {});
  return gate;
}

/**
 * One call of the SDK within its time, whatever the SDK is at (its search for credentials does not hear signals).
 *
 * @param what for messages, e.g. `AWS KMS: kms:Encrypt with alias/x in eu-central-1`
 * @throws KmsError or KmsUnavailableError, never what the SDK threw; the signal's reason
 */
export async function call<T>(
  service: 'KMS' | 'STORE',
  what: string,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const deadline = AbortSignal.timeout(CALL_TIMEOUT_MS);
  const until = signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
  let onAbort = (): void => {};
  const over = new Promise<never>((_, reject) => {
    onAbort = () => reject(until.reason);
    until.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([work(until), over]);
  } catch (error) {
    signal?.throwIfAborted();
    if (deadline.aborted)
      throw new KmsUnavailableError(
        `ERR_${service}_UNAVAILABLE`,
        `${what}: no answer within ${CALL_TIMEOUT_MS} ms. Check the network and the status of AWS, then try again`,
      );
    throw failure(service, what, error);
  } finally {
    until.removeEventListener('abort', onAbort);
  }
}
