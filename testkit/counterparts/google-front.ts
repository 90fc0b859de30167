import { constants, generateKeyPairSync, type KeyObject, randomBytes, verify } from 'node:crypto';
import {
  createServer as createHttp,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttps } from 'node:https';
import type { AddressInfo } from 'node:net';
import { boundedText } from '@asterism/runtime/bounded-text';
import { testCa } from '../test-ca.ts';

const MAX_FORM = 64 * 1024;
const MAX_LOG = 10_000;
const GRANT = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

/** What an emulator is asked, before it is. */
export interface Passing {
  readonly method: string;
  /** At the emulator; a rule may change its query. */
  readonly url: URL;
}

export interface GoogleFrontOptions {
  /** Address of the emulator, http. */
  readonly upstream: () => string;
  /** The scope that tokens must have. */
  readonly scope: string;
  /** What the emulator does not do: an HTTP status to answer with instead of asking it. */
  readonly rule?: (passing: Passing) => Promise<number | undefined>;
  readonly tls?: boolean;
  /** Address to listen on; default 127.0.0.1. */
  readonly host?: string;
}

/**
 * What emulators of Google Cloud leave out, before one of them: a token endpoint at `/token`, which checks assertions of
 * service accounts (RFC 7523) and gives short-lived tokens, and the check of those tokens on every call.
 */
export interface GoogleFront extends AsyncDisposable {
  readonly address: string;
  /** PEM of the authority of its certificate; '' without TLS. */
  readonly ca: string;
  /** The JSON of a new service account key, as Google Cloud makes it. @param change fields to set otherwise */
  serviceAccountKey(change?: Readonly<Record<string, unknown>>): string;
  /** No service account key is good any more; tokens are. */
  deleteKeys(): void;
  /** No token that was given is good any more. */
  expireTokens(): void;
  /** From now on, what token answers say of their life in seconds. */
  tokenSeconds: number;
  /** Scopes that tokens get from now on; default: what was asked for. */
  grantScope: string | undefined;
  /** Answers the next `times` calls with `status`. */
  refuse(times: number, status: number, headers?: Readonly<Record<string, string>>): void;
  readonly tokensGiven: number;
  /** `METHOD /path` of each call that had a good token. */
  readonly calls: readonly string[];
}

export async function startGoogleFront(options: GoogleFrontOptions): Promise<GoogleFront> {
  const { host = '127.0.0.1', tls = true } = options;
  const ca = tls ? await testCa() : undefined;
  const own = await ca?.issue({ name: 'localhost', usage: 'server', addresses: [host] });
  const accounts = new Map<string, KeyObject>();
  const tokens = new Map<string, { scope: string; until: number }>();
  const calls: string[] = [];
  const refusals: { status: number; headers: Readonly<Record<string, string>> }[] = [];
  let given = 0;
  let made = 0;

  const giveToken = async (incoming: IncomingMessage, outgoing: ServerResponse) => {
    const form = new URLSearchParams(await boundedText(incoming, MAX_FORM));
    const scope = scopeOf(form, accounts, `${front.address}/token`);
    if (scope === undefined) {
      json(outgoing, 400, {
        error: 'invalid_grant',
        error_description: `Invalid JWT: ${form.get('assertion')}`,
      });
      return;
    }
    const token = `ya29.${randomBytes(24).toString('base64url')}`;
    tokens.set(token, {
      scope: front.grantScope ?? scope,
      until: performance.now() + front.tokenSeconds * 1000,
    });
    given++;
    json(outgoing, 200, { access_token: token, expires_in: front.tokenSeconds, token_type: 'Bearer' });
  };

  const pass = async (incoming: IncomingMessage, outgoing: ServerResponse) => {
    const refusal = refusals.shift();
    if (refusal !== undefined) {
      json(outgoing, refusal.status, failure(refusal.status, 'RESOURCE_EXHAUSTED'), refusal.headers);
      return;
    }
    const token = tokens.get(/^Bearer (.+)$/.exec(incoming.headers.authorization ?? '')?.[1] ?? '');
    if (token === undefined || token.until < performance.now()) {
      json(outgoing, 401, failure(401, 'UNAUTHENTICATED'));
      return;
    }
    if (!token.scope.split(' ').includes(options.scope)) {
      json(outgoing, 403, failure(403, 'PERMISSION_DENIED'));
      return;
    }
    const url = new URL(incoming.url ?? '/', options.upstream());
    if (calls.length < MAX_LOG) calls.push(`${incoming.method} ${incoming.url}`);
    const status = await options.rule?.({ method: incoming.method ?? '', url });
    if (status !== undefined) {
      json(outgoing, status, failure(status, 'FAILED_PRECONDITION'));
      return;
    }
    const { authorization: _, host: __, ...headers } = incoming.headers;
    const onward = request(url, { method: incoming.method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    });
    onward.on('error', () => outgoing.destroy());
    incoming.pipe(onward);
  };

  const handler = (incoming: IncomingMessage, outgoing: ServerResponse) => {
    const handled = incoming.url === '/token' ? giveToken(incoming, outgoing) : pass(incoming, outgoing);
    handled.catch(() => outgoing.destroy());
  };
  const server: Server =
    own === undefined ? createHttp(handler) : createHttps({ cert: own.certificate, key: own.key }, handler);
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const { port } = server.address() as AddressInfo;
  const front: GoogleFront = {
    address: `${tls ? 'https' : 'http'}://${host}:${port}`,
    ca: ca?.pem ?? '',
    serviceAccountKey(change = {}) {
      const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      const email = `keys-${made++}@project.iam.gserviceaccount.com`;
      accounts.set(email, publicKey);
      return JSON.stringify({
        type: 'service_account',
        project_id: 'project',
        private_key_id: randomBytes(20).toString('hex'),
        private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
        client_email: email,
        client_id: '100000000000000000000',
        token_uri: `${front.address}/token`,
        universe_domain: 'googleapis.com',
        ...change,
      });
    },
    deleteKeys: () => accounts.clear(),
    expireTokens: () => tokens.clear(),
    tokenSeconds: 3600,
    grantScope: undefined,
    refuse(times, status, headers = {}) {
      for (let i = 0; i < times; i++) refusals.push({ status, headers });
    },
    get tokensGiven() {
      return given;
    },
    calls,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
  return front;
}

/** The scope that a good assertion asks for. */
function scopeOf(
  form: URLSearchParams,
  accounts: ReadonlyMap<string, KeyObject>,
  audience: string,
): string | undefined {
  const parts = (form.get('assertion') ?? '').split('.');
  if (form.get('grant_type') !== GRANT || parts.length !== 3) return undefined;
  const [header, claims, signature] = parts as [string, string, string];
  const read = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));
  const { alg } = read(header);
  const { iss, scope, aud, iat, exp } = read(claims);
  const key = accounts.get(iss);
  const now = Date.now() / 1000;
  const good =
    alg === 'RS256' &&
    key !== undefined &&
    verify(
      'RSA-SHA256',
      Buffer.from(`${header}.${claims}`),
      { key, padding: constants.RSA_PKCS1_PADDING },
      Buffer.from(signature, 'base64url'),
    ) &&
    aud === audience &&
    iat <= now + 5 &&
    exp > now &&
    exp - iat <= 3600 &&
    typeof scope === 'string';
  return good ? scope : undefined;
}

function failure(code: number, status: string) {
  return { error: { code, message: 'refused by the test', status } };
}

function json(
  outgoing: ServerResponse,
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  outgoing.writeHead(status, { ...headers, 'content-type': 'application/json; charset=UTF-8' });
  outgoing.end(JSON.stringify(body));
}
