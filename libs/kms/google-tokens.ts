import type { Service } from './google-http.ts';

/** What may be sent in a header as a token. */
export const TOKEN = /^[\x21-\x7e]{1,16384}$/;

/** Access tokens (OAuth 2.0) for Google Cloud. */
export interface Tokens {
  /** @throws KmsError ERR_KMS_CREDENTIALS | ERR_STORE_CREDENTIALS; KmsUnavailableError; the signal's reason */
  get(signal?: AbortSignal): Promise<string>;
  /** The service refused this one: the next is a new one. */
  forget(token: string): void;
}

export interface TokenOptions {
  readonly service: Service;
  readonly scope: string;
  readonly timeoutMs: number;
  /** Of the key or bucket: the library would look for one at the metadata server, by gcloud and at Google. */
  readonly projectId: string;
  /** PEM of the authority of a token_uri that is not Google's. */
  readonly caCertificate?: string | undefined;
}

/** Whoever waits may leave; the work goes on. @throws the signal's reason */
export function until<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
