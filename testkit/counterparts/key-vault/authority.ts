import { createSign, createVerify, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import type { TestCa } from '../../test-ca.ts';
import { type Answering, type Asked, httpsServer, type Reply, type TestServer } from './https-server.ts';

export interface Claims {
  readonly iss: string;
  readonly aud: string;
  readonly exp: number;
  readonly nbf: number;
  readonly appid: string;
  readonly tid: string;
}

/** Microsoft Entra on loopback: one tenant, one service principal, the client credentials grant. */
export interface Authority {
  readonly origin: string;
  readonly tenantId: string;
  readonly clientId: string;
  readonly clientSecret: string;
  /** What a workload shows instead of a secret: the token of its own platform, which the tenant trusts. */
  readonly federatedToken: string;
  /** Seconds that tokens live from now on. */
  tokenSeconds: number;
  /** The secret has run out. */
  secretExpired: boolean;
  /** How many tokens it gave, and for which scopes. */
  readonly scopes: string[];
  /** Answers instead of it, where it answers something. */
  instead: ((asked: Asked) => Answering | undefined) | undefined;
  /** Why a token is not good for an audience now; undefined where it is. */
  problemOf(token: string, audience: string): string | undefined;
  /** A token as it gives them, with other claims. */
  mint(claims: Partial<Claims>): string;
  kill(): Promise<void>;
}

export async function startAuthority(ca: TestCa, host = '127.0.0.1'): Promise<Authority> {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const tenantId = randomUUID();
  const clientId = randomUUID();
  const clientSecret = randomBytes(24).toString('base64url');
  const federatedToken = randomBytes(24).toString('base64url');
  const now = () => Math.floor(Date.now() / 1000);
  // As Entra's tokens of the first kind: Azurite and Key Vault both expect this issuer.
  const issuer = `https://sts.windows.net/${tenantId}/`;

  const mint = (claims: Partial<Claims>): string => {
    const body: Claims = {
      iss: issuer,
      aud: 'https://vault.azure.net',
      nbf: now() - 5,
      exp: now() + authority.tokenSeconds,
      appid: clientId,
      tid: tenantId,
      ...claims,
    };
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${encode({ alg: 'RS256', typ: 'JWT' })}.${encode({ ...body, iat: body.nbf })}`;
    return `${signed}.${createSign('sha256').update(signed).sign(privateKey, 'base64url')}`;
  };

  const token = ({ body }: Asked): Reply => {
    const form = new URLSearchParams(body);
    const refuse = (status: number, error: string, description: string): Reply => ({
      status,
      body: { error, error_description: description, error_codes: [], correlation_id: randomUUID() },
    });
    const scope = form.get('scope') ?? '';
    if (form.get('client_id') !== clientId)
      return refuse(400, 'unauthorized_client', 'AADSTS700016: Application was not found in the directory.');
    const federated = form.get('client_assertion');
    if (federated !== null && federated !== federatedToken)
      return refuse(401, 'invalid_client', `AADSTS700213: No matching federated identity: ${body}`);
    // A careless authority that repeats what it was sent: none of it may reach a message.
    if (federated === null && form.get('client_secret') !== clientSecret)
      return refuse(401, 'invalid_client', `AADSTS7000215: Invalid client secret provided: ${body}`);
    if (authority.secretExpired)
      return refuse(401, 'invalid_client', 'AADSTS7000222: The provided client secret keys are expired.');
    const audience = /(?:^|\s)(https:\/\/\S+)\/\.default(?:\s|$)/.exec(scope)?.[1];
    if (form.get('grant_type') !== 'client_credentials' || audience === undefined)
      return refuse(400, 'invalid_scope', 'AADSTS70011: The provided value for scope is not valid.');
    authority.scopes.push(scope);
    const expires = authority.tokenSeconds;
    const access = mint({ aud: audience });
    return {
      status: 200,
      body: { token_type: 'Bearer', expires_in: expires, ext_expires_in: expires, access_token: access },
    };
  };

  const answer = (asked: Asked): Answering => {
    const instead = authority.instead?.(asked);
    if (instead !== undefined) return instead;
    const { pathname } = asked.url;
    const base = `${server.origin}/${tenantId}`;
    if (asked.method === 'GET' && pathname === `/${tenantId}/v2.0/.well-known/openid-configuration`)
      return {
        status: 200,
        body: {
          token_endpoint: `${base}/oauth2/v2.0/token`,
          authorization_endpoint: `${base}/oauth2/v2.0/authorize`,
          issuer: `${base}/v2.0`,
          jwks_uri: `${base}/discovery/v2.0/keys`,
        },
      };
    if (asked.method === 'POST' && pathname === `/${tenantId}/oauth2/v2.0/token`) return token(asked);
    return {
      status: 400,
      body: { error: 'invalid_tenant', error_description: 'AADSTS90002: Tenant not found.' },
    };
  };
  const server: TestServer = await httpsServer(ca, answer, { host });

  const authority: Authority = {
    origin: server.origin,
    tenantId,
    clientId,
    clientSecret,
    federatedToken,
    tokenSeconds: 3600,
    secretExpired: false,
    scopes: [],
    instead: undefined,
    mint,
    problemOf(token, audience) {
      const [head = '', body = '', signature = ''] = token.split('.');
      const good = createVerify('sha256').update(`${head}.${body}`).verify(publicKey, signature, 'base64url');
      if (!good) return 'the signature is wrong';
      const claims = JSON.parse(Buffer.from(body, 'base64url').toString()) as Claims;
      if (claims.iss !== issuer || claims.tid !== tenantId) return 'another tenant';
      if (claims.aud !== audience) return `for ${claims.aud}`;
      if (claims.exp <= now() || claims.nbf > now()) return 'the lifetime has expired';
      return undefined;
    },
    kill: () => server.kill(),
  };
  return authority;
}
