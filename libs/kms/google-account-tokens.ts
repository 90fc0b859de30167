import { createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { Agent } from 'node:https';
import { fromUtf8, toBase64Url, toUtf8 } from '@asterism/bytes/encoding';
import { parseJson } from '@asterism/bytes/json';
import { ParseError } from '@asterism/errors/errors';
import { KmsError } from './errors.ts';
import { exchange, type HttpAnswer, type Service } from './google-http.ts';
import { parseServiceAccountKey, type ServiceAccountKey } from './google-service-account.ts';
import { TOKEN, type TokenOptions, type Tokens, until } from './google-tokens.ts';

const GRANT = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const ASSERTION_SECONDS = 600;
const MAX_ANSWER_BYTES = 64 * 1024;
/** A token is renewed this long before it ends, or halfway where it is shorter. */
const RENEW_EARLY_MS = 60_000;
const GOOGLE_HOST = /(^|\.)googleapis\.com$/;

interface Issued {
  readonly token: string;
  /** As performance.now(). */
  readonly renewAt: number;
}

/**
 * Tokens of a service account, by a signed assertion (RFC 7523). Not by Google's library: that one asks at Google
 * whatever token_uri says, and its assertions are made out to Google, so they must not be shown to anyone else. Those
 * here are made out to token_uri, and worth nothing elsewhere.
 *
 * @param text the JSON of the service account key
 * @throws KmsError ERR_KMS_CREDENTIALS | ERR_STORE_CREDENTIALS
 */
export function serviceAccountTokens(text: string, options: TokenOptions): Tokens {
  const { account, privateKey } = readKey(text, options.service);
  let issued: Issued | undefined;
  let pending: Promise<Issued> | undefined;
  return {
    async get(signal) {
      if (issued !== undefined && performance.now() < issued.renewAt) return issued.token;
      // One asks for all.
      pending ??= request(account, privateKey, options).finally(() => {
        pending = undefined;
      });
      issued = await until(pending, signal);
      return issued.token;
    },
    forget(token) {
      if (issued?.token === token) issued = undefined;
    },
  };
}

function readKey(text: string, service: Service): { account: ServiceAccountKey; privateKey: KeyObject } {
  const refuse = (why: string, cause?: unknown) =>
    new KmsError(
      `ERR_${service}_CREDENTIALS`,
      `the service account key cannot be used: ${why}; make a new one`,
      { cause },
    );
  let account: ServiceAccountKey;
  try {
    account = parseServiceAccountKey(text);
  } catch (cause) {
    if (cause instanceof ParseError) throw refuse(cause.message, cause);
    throw cause;
  }
  let privateKey: KeyObject | undefined;
  try {
    privateKey = createPrivateKey(account.privateKey);
  } catch {
    // What OpenSSL says of a private key is not passed on.
  }
  if (privateKey?.asymmetricKeyType !== 'rsa') throw refuse('private_key is no RSA key');
  return { account, privateKey };
}

async function request(account: ServiceAccountKey, key: KeyObject, options: TokenOptions): Promise<Issued> {
  const { service, scope, timeoutMs, caCertificate } = options;
  const { host, hostname } = new URL(account.tokenUri);
  const ca = GOOGLE_HOST.test(hostname) ? undefined : caCertificate;
  const now = Math.floor(Date.now() / 1000);
  const part = (value: object) => toBase64Url(toUtf8(JSON.stringify(value)));
  const header = part({
    alg: 'RS256',
    typ: 'JWT',
    ...(account.privateKeyId && { kid: account.privateKeyId }),
  });
  const claims = part({
    iss: account.email,
    scope,
    aud: account.tokenUri,
    iat: now,
    exp: now + ASSERTION_SECONDS,
  });
  const signature = sign('RSA-SHA256', Buffer.from(`${header}.${claims}`), key);
  const assertion = `${header}.${claims}.${toBase64Url(signature)}`;
  const asked = performance.now();
  const answer = await exchange(
    {
      method: 'POST',
      url: account.tokenUri,
      headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
      body: toUtf8(new URLSearchParams({ grant_type: GRANT, assertion }).toString()),
      maxBytes: MAX_ANSWER_BYTES,
    },
    {
      service,
      timeoutMs,
      signal: undefined,
      agent: new Agent({ minVersion: 'TLSv1.2', ...(ca !== undefined && { ca }) }),
    },
  );
  if (answer.status !== 200)
    throw new KmsError(
      `ERR_${service}_CREDENTIALS`,
      `${host} gives no token for the service account (${answer.status}${oauthError(answer)}): is its key deleted, the account disabled, or the clock of this machine wrong?`,
    );
  try {
    const { token, lifeMs } = parseTokenAnswer(fromUtf8(answer.bytes));
    return { token, renewAt: asked + Math.max(lifeMs - RENEW_EARLY_MS, lifeMs / 2) };
  } catch (cause) {
    if (!(cause instanceof ParseError)) throw cause;
    throw new KmsError(`ERR_${service}_ANSWER`, `${host} answers something else than a token`, { cause });
  }
}

/**
 * The answer of a token endpoint (RFC 6749 section 5.1).
 * @throws ParseError
 */
export function parseTokenAnswer(text: string): { readonly token: string; readonly lifeMs: number } {
  const fields = objectOf(text);
  const { access_token: token, expires_in: seconds, token_type: type } = fields;
  if (typeof token !== 'string' || !TOKEN.test(token)) throw new ParseError('access_token is no token');
  if (typeof type !== 'string' || type.toLowerCase() !== 'bearer')
    throw new ParseError('token_type is not Bearer');
  if (typeof seconds !== 'number' || !(seconds >= 0 && seconds <= 86_400))
    throw new ParseError('expires_in is not 0 to 86400');
  return { token, lifeMs: seconds * 1000 };
}

function objectOf(text: string): Readonly<Record<string, unknown>> {
  const value = parseJson(text);
  if (typeof value !== 'object' || value === null) throw new ParseError('no JSON object');
  return value as Readonly<Record<string, unknown>>;
}

/** The code of RFC 6749 section 5.2 only: a description could repeat what we sent. */
function oauthError({ bytes }: HttpAnswer): string {
  try {
    const { error } = objectOf(fromUtf8(bytes));
    return typeof error === 'string' && /^[a-z_]{1,40}$/.test(error) ? `, ${error}` : '';
  } catch {
    return '';
  }
}
