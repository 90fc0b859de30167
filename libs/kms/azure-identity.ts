import type { ClientSecretCredentialOptions, TokenCredential } from '@azure/identity';
import type { Side } from './azure-errors.ts';
import { type Answer, type AzureHttp, azureHttp, ExchangeError } from './azure-http.ts';
import { KmsError, KmsUnavailableError } from './errors.ts';
import type { Settings } from './settings.ts';

/** The HTTP client as every SDK of Azure takes it. */
type HttpClient = NonNullable<ClientSecretCredentialOptions['httpClient']>;
type PipelineRequest = Parameters<HttpClient['sendRequest']>[0];
type PipelineHeaders = PipelineRequest['headers'];

/** Where tokens come from, by the end of the service's name: https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud */
const AUTHORITIES: readonly (readonly [suffix: string, authority: string])[] = [
  ['.azure.cn', 'https://login.chinacloudapi.cn'],
  ['.chinacloudapi.cn', 'https://login.chinacloudapi.cn'],
  ['.usgovcloudapi.net', 'https://login.microsoftonline.us'],
  ['.microsoftazure.de', 'https://login.microsoftonline.de'],
];
const PUBLIC_AUTHORITY = 'https://login.microsoftonline.com';

/** Plain HTTP is only for what answers on this machine: IMDS of its cloud, and agents on loopback. */
const LOCAL = /^(169\.254\.169\.254|127(\.\d{1,3}){3}|localhost|\[::1\])$/;

export interface AzureIdentity {
  readonly credential: TokenCredential;
  close(): void;
}

/**
 * Tokens for one service: by the service principal of the settings, else by what the machine has (environment, workload
 * identity, managed identity, a login of the Azure CLI), as DefaultAzureCredential looks for it. The setting
 * `authorityHost`, else `AZURE_AUTHORITY_HOST`, names another authority; its certificate is judged by `caCertificate` where
 * there is one.
 *
 * @param service which service: host that is called, and the scope of its tokens. No token of another scope is asked
 *   for, whatever the service says in its challenge.
 * @throws KmsError ERR_..._SETTINGS
 */
export async function azureIdentity(
  side: Side,
  settings: Settings,
  service: { readonly host: string; readonly scope: string },
): Promise<AzureIdentity> {
  const { tenantID: tenantId, clientID: clientId } = settings.parameters;
  const { clientSecret, caCertificate } = settings.credentials;
  if (clientSecret !== undefined && (tenantId === undefined || clientId === undefined))
    throw new KmsError(`ERR_${side}_SETTINGS`, 'clientSecret needs tenantID and clientID beside it');

  const usual = AUTHORITIES.find(([suffix]) => service.host.endsWith(suffix))?.[1] ?? PUBLIC_AUTHORITY;
  const named = settings.parameters.authorityHost;
  const authorityHost = named ?? (process.env.AZURE_AUTHORITY_HOST || usual);
  if (!URL.canParse(authorityHost) || !authorityHost.startsWith('https://'))
    throw new KmsError(
      `ERR_${side}_SETTINGS`,
      `${named === undefined ? 'AZURE_AUTHORITY_HOST' : 'authorityHost'} is no address that begins with https://`,
    );
  const ownAuthority = ![PUBLIC_AUTHORITY, ...AUTHORITIES.map(([, known]) => known)].includes(
    authorityHost.replace(/\/$/, ''),
  );
  if (named !== undefined && ownAuthority && clientSecret === undefined)
    throw new KmsError(
      `ERR_${side}_SETTINGS`,
      `the authority ${new URL(named).host} is none of Microsoft's and needs a clientSecret: what the machine has is not sent to it`,
    );
  const http = azureHttp(
    ({ protocol, hostname }) => protocol === 'https:' || LOCAL.test(hostname),
    ownAuthority ? caCertificate : undefined,
  );
  const last: LastExchange = {};
  const options = {
    authorityHost,
    // An authority of one's own is not known to Microsoft's directory of authorities.
    disableInstanceDiscovery: ownAuthority,
    httpClient: watched(http, last),
    // Whoever calls tries again; here it would only add up.
    retryOptions: { maxRetries: 0 },
  };
  const { ClientSecretCredential, DefaultAzureCredential } = await import('@azure/identity');
  const source =
    clientSecret !== undefined
      ? new ClientSecretCredential(tenantId!, clientId!, clientSecret, options)
      : new DefaultAzureCredential({
          ...options,
          ...(tenantId !== undefined && { tenantId }),
          ...(clientId !== undefined && {
            managedIdentityClientId: clientId,
            workloadIdentityClientId: clientId,
          }),
        });
  return {
    credential: guarded(side, source, service.scope, last),
    close: () => http.close(),
  };
}

/**
 * How the last exchange with an authority ended: identity's own errors lose it on their way. Of two calls at once one may
 * get the other's; it chooses between errors, nothing else.
 */
interface LastExchange {
  status?: number;
  failure?: ExchangeError | undefined;
}

function watched(http: AzureHttp, last: LastExchange): HttpClient {
  const client = pipelineClient(http);
  return {
    async sendRequest(request) {
      // Machines outside of Azure have no IMDS: that it is not there says nothing of the authority.
      const watch = !LOCAL.test(new URL(request.url).hostname) || request.url.startsWith('https:');
      try {
        const answer = await client.sendRequest(request);
        if (watch) Object.assign(last, { status: answer.status, failure: undefined });
        return answer;
      } catch (error) {
        if (watch && error instanceof ExchangeError) last.failure = error;
        throw error;
      }
    },
  };
}

function guarded(side: Side, source: TokenCredential, scope: string, last: LastExchange): TokenCredential {
  return {
    async getToken(asked, options) {
      if ([asked].flat().some((one) => one !== scope))
        throw new KmsError(
          `ERR_${side}_ANSWER`,
          `the service asks for a token of another service than ${scope}: it does not get one`,
        );
      delete last.status;
      delete last.failure;
      try {
        const token = await source.getToken(asked, options);
        if (token === null) throw new Error('none');
        // The source has a cache of its own. Were the SDKs told of the expiry, they would renew it in the background,
        // where a failure is an unhandled rejection, which ends the process.
        return { ...token, expiresOnTimestamp: 0, refreshAfterTimestamp: 0 };
      } catch (error) {
        throw credentialsError(side, error, last);
      }
    },
  };
}

function credentialsError(side: Side, error: unknown, { status, failure }: LastExchange): Error {
  if (failure?.reason === 'answer')
    return new KmsError(`ERR_${side}_ANSWER`, `no token: ${failure.message}`, { cause: failure });
  if (failure !== undefined)
    return new KmsUnavailableError(`ERR_${side}_UNAVAILABLE`, `no token: ${failure.message}`, {
      cause: failure,
    });
  if (status === 429)
    return new KmsUnavailableError(`ERR_${side}_THROTTLED`, 'no token: Microsoft Entra asks for fewer calls');
  if (status !== undefined && status >= 500)
    return new KmsUnavailableError(`ERR_${side}_UNAVAILABLE`, `no token: Microsoft Entra failed (${status})`);
  // Only its number is passed on: the text may repeat what was sent.
  const number = /\bAADSTS\d{3,8}\b/.exec(error instanceof Error ? error.message : '')?.[0];
  if (status !== undefined && status < 400 && number === undefined)
    return new KmsError(`ERR_${side}_ANSWER`, 'no token: the answer of Microsoft Entra makes no sense');
  return new KmsError(
    `ERR_${side}_CREDENTIALS`,
    number === undefined
      ? 'no token: there are no credentials, or Microsoft Entra refuses them'
      : `no token: Microsoft Entra refuses the credentials (${number}): check tenant, client id and secret, and that the secret has not expired`,
  );
}

/** An HTTP client as the SDKs' pipelines want it. */
export function pipelineClient(http: AzureHttp): HttpClient {
  return {
    async sendRequest(request) {
      const { url, method, body, timeout, agent, abortSignal } = request;
      const answer = await http.exchange({
        url,
        method,
        headers: request.headers.toJSON({ preserveCase: true }),
        body,
        timeoutMs: timeout,
        agent,
        signal: abortSignal,
      });
      return {
        request,
        status: answer.status,
        headers: pipelineHeaders(answer),
        bodyAsText: answer.body.toString(),
      };
    },
  };
}

function pipelineHeaders({ headers }: Answer): PipelineHeaders {
  const held = new Map(Object.entries(headers));
  return {
    get: (name) => held.get(name.toLowerCase()),
    has: (name) => held.has(name.toLowerCase()),
    set: (name, value) => void held.set(name.toLowerCase(), String(value)),
    delete: (name) => void held.delete(name.toLowerCase()),
    toJSON: () => Object.fromEntries(held),
    [Symbol.iterator]: () => held.entries(),
  };
}
