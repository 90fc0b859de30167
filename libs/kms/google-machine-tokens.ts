import { KmsError, KmsUnavailableError } from './errors.ts';
import type { Service } from './google-http.ts';
import { TOKEN, type TokenOptions, type Tokens, until } from './google-tokens.ts';

const NETWORK_ERROR =
  /^(ECONN[A-Z]+|ETIMEDOUT|ENOTFOUND|EAI_[A-Z]+|E(HOST|NET)UNREACH|EPIPE|UND_ERR_[A-Z_]+)$/;

/** Access tokens (OAuth 2.0) for Google Cloud. */

/**
 * Tokens of whatever the machine offers, as Google's library finds it: GOOGLE_APPLICATION_CREDENTIALS (a key, or
 * workload identity federation), the gcloud user, the metadata server.
 */
export async function machineTokens(options: TokenOptions): Promise<Tokens> {
  const { GoogleAuth } = await import('google-auth-library');
  const { service, scope, timeoutMs, projectId } = options;
  let auth = new GoogleAuth({ scopes: [scope], projectId });
  let last: string | undefined;
  return {
    async get(signal) {
      const timeout = AbortSignal.timeout(timeoutMs);
      let token: string | null | undefined;
      try {
        token = await until(
          auth.getAccessToken(),
          signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
        );
      } catch (error) {
        signal?.throwIfAborted();
        throw machineFailure(error, service, timeout.aborted);
      }
      if (typeof token !== 'string' || !TOKEN.test(token))
        throw new KmsError(
          `ERR_${service}_CREDENTIALS`,
          'the credentials of this machine give no access token',
        );
      last = token;
      return token;
    },
    forget(token) {
      // The library keeps a token until it ends; only a new one of it asks again.
      if (token === last) auth = new GoogleAuth({ scopes: [scope], projectId });
    },
  };
}

/** The library's own errors hold requests with tokens in them: none is passed on. */
function machineFailure(error: unknown, service: Service, late: boolean): Error {
  const { code, status } = (error ?? {}) as { code?: unknown; status?: unknown };
  const network = typeof code === 'string' && NETWORK_ERROR.test(code);
  const answered = typeof status === 'number' ? ` (${status})` : '';
  if (late || network || (typeof status === 'number' && (status === 429 || status >= 500)))
    return new KmsUnavailableError(
      `ERR_${service}_UNAVAILABLE`,
      `the metadata server or the token service of Google does not answer${answered}; try again later`,
    );
  return new KmsError(
    `ERR_${service}_CREDENTIALS`,
    `this machine has no credentials for Google Cloud, or they are refused${answered}: give serviceAccountKey, set GOOGLE_APPLICATION_CREDENTIALS, or attach a service account to the machine`,
  );
}
