import { ExchangeError } from './azure-http.ts';
import { KmsError, KmsUnavailableError } from './errors.ts';

/** Milliseconds for one call: a token, a challenge and the exchange itself. */
const CALL_MS = 30_000;

/** Which half of a code: ERR_KMS_... or ERR_STORE_... */
export type Side = 'KMS' | 'STORE';

/** What an answer says beside its bytes: the parts of an SDK's error that hold no secrets. */
export interface Refusal {
  readonly status: number;
  /** Of the service, e.g. `BlobNotFound`; empty where it said none that is one. */
  readonly code: string;
  readonly retryAfterMs: number | undefined;
}

/**
 * Does one call of an Azure SDK, for {@link CALL_MS} at most.
 *
 * @param what who was asked for what, for messages
 * @param judge turns a refusal into an error that is more than its status says
 * @throws KmsError, KmsUnavailableError; the reason of the signal
 */
export async function azureCall<T>(
  side: Side,
  what: string,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
  judge: (refusal: Refusal, cause: Error) => KmsError | undefined = () => undefined,
): Promise<T> {
  signal?.throwIfAborted();
  const deadline = AbortSignal.timeout(CALL_MS);
  const until = signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
  const ended = new Promise<never>((_, reject) => {
    until.addEventListener('abort', () => reject(new Error('ended')), { once: true });
  });
  try {
    return await Promise.race([work(until), ended]);
  } catch (error) {
    signal?.throwIfAborted();
    if (deadline.aborted)
      throw new KmsUnavailableError(
        `ERR_${side}_UNAVAILABLE`,
        `${what} took more than ${CALL_MS} ms: try again later`,
      );
    throw azureError(side, what, error, judge);
  }
}

/** SDKs' errors hold the request with its token: nothing of them is passed on but status and code. */
function azureError(
  side: Side,
  what: string,
  error: unknown,
  judge: (refusal: Refusal, cause: Error) => KmsError | undefined,
): Error {
  if (error instanceof KmsError || error instanceof KmsUnavailableError) return error;
  if (error instanceof ExchangeError)
    return error.reason === 'unreachable'
      ? new KmsUnavailableError(`ERR_${side}_UNAVAILABLE`, `${what}: ${error.message}`, { cause: error })
      : new KmsError(`ERR_${side}_ANSWER`, `${what}: ${error.message}`, { cause: error });
  const refusal = refusalOf(error);
  if (refusal === undefined) {
    const name = error instanceof Error && /^\w{1,64}$/.test(error.name) ? error.name : 'Error';
    return new KmsError(`ERR_${side}_ANSWER`, `${what}: the answer makes no sense (${name})`);
  }
  const { status, code, retryAfterMs } = refusal;
  const said = code === '' ? `HTTP ${status}` : `HTTP ${status}, ${code}`;
  const cause = new Error(said);
  const judged = judge(refusal, cause);
  if (judged !== undefined) return judged;
  if (status === 429 || code === 'ServerBusy' || (status === 503 && retryAfterMs !== undefined))
    return new KmsUnavailableError(
      `ERR_${side}_THROTTLED`,
      `${what}: the service asks for fewer calls (${said})`,
      { cause, ...(retryAfterMs !== undefined && { retryAfterMs }) },
    );
  if (status === 408 || (status >= 500 && status !== 501))
    return new KmsUnavailableError(`ERR_${side}_UNAVAILABLE`, `${what}: try again later (${said})`, {
      cause,
      ...(retryAfterMs !== undefined && { retryAfterMs }),
    });
  if (status === 401)
    return new KmsError(
      `ERR_${side}_CREDENTIALS`,
      `${what}: the service does not accept the credentials (${said}): check them, and that they have not expired`,
      { cause },
    );
  if (status === 403)
    return new KmsError(
      `ERR_${side}_DENIED`,
      `${what}: not allowed (${said}): the identity lacks a role, or a firewall of the service is in the way`,
      { cause },
    );
  return new KmsError(`ERR_${side}_ANSWER`, `${what}: unexpected answer (${said})`, { cause });
}

interface SdkError {
  readonly statusCode?: unknown;
  readonly code?: unknown;
  readonly response?: { readonly headers?: { get?(name: string): string | undefined } };
  readonly details?: {
    readonly error?: { readonly code?: unknown; readonly innerError?: { readonly code?: unknown } };
  };
}

/** Reads the SDK's RestError; undefined where it is none with a status. */
function refusalOf(error: unknown): Refusal | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const { statusCode: status, code, response, details } = error as SdkError;
  if (typeof status !== 'number' || status < 400) return undefined;
  const header = (name: string) => response?.headers?.get?.(name);
  // Key Vault names the reason one level deeper: Forbidden, and in it KeyDisabled.
  const named = [header('x-ms-error-code'), details?.error?.innerError?.code, details?.error?.code, code];
  return {
    status,
    code: named.find((one): one is string => typeof one === 'string' && /^\w{1,64}$/.test(one)) ?? '',
    retryAfterMs: retryAfter(header('retry-after-ms'), header('retry-after')),
  };
}

function retryAfter(milliseconds: string | undefined, seconds: string | undefined): number | undefined {
  if (milliseconds !== undefined && /^\d{1,8}$/.test(milliseconds)) return Number(milliseconds);
  return seconds !== undefined && /^\d{1,5}$/.test(seconds) ? Number(seconds) * 1000 : undefined;
}
