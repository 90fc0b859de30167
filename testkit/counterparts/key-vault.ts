import {
  constants,
  createCipheriv,
  createDecipheriv,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
} from 'node:crypto';
import type { TestCa } from '../test-ca.ts';
import type { Authority } from './key-vault/authority.ts';
import {
  type Answering,
  type Asked,
  httpsServer,
  type Reply,
  type TestServer,
} from './key-vault/https-server.ts';

const AUDIENCE = 'https://vault.azure.net';
const A256KW_IV = Buffer.alloc(8, 0xa6);

export type KeyKind = 'RSA' | 'oct-HSM' | 'EC';

/** One version of a key, as the test set it up. */
export interface VaultKeyVersion {
  readonly version: string;
  readonly kind: KeyKind;
  enabled: boolean;
  /** Unix seconds. */
  expires?: number;
  notBefore?: number;
  operations: string[];
}

/**
 * Key Vault and Managed HSM on this machine, as far as keys that wrap go. Neither has an emulator in the registries that
 * are reached here, so this one is our own, after the REST reference
 * (https://learn.microsoft.com/rest/api/keyvault/keys/operation-groups, 2025-07-01); what speaks with it is Microsoft's
 * SDK. Keys do real RSA-OAEP-256 and AES key wrap. Tokens are judged: signature, issuer, audience, lifetime.
 */
export interface KeyVault {
  readonly origin: string;
  /** The next version of a key. */
  addKey(name: string, kind?: KeyKind): VaultKeyVersion;
  deleteKey(name: string): void;
  /** Operations that the identity may do: all at first. */
  allowed: Set<'get' | 'wrapkey' | 'unwrapkey'>;
  /** Answers instead of it, where it answers something. Asked before tokens are judged. */
  instead: ((asked: Asked) => Answering | undefined) | undefined;
  /** Every request so far: method, path, and whether it carried a token. */
  readonly requests: { method: string; path: string; token: boolean; body: string }[];
  kill(): Promise<void>;
  /** After {@link kill}: its keys are there again. */
  start(): Promise<void>;
}

interface Material extends VaultKeyVersion {
  readonly rsa?: { readonly privateKey: KeyObject; readonly publicKey: KeyObject };
  readonly aes?: Buffer;
}

export async function startKeyVault(
  ca: TestCa,
  authority: Authority,
  options: { readonly host?: string; readonly certificateOf?: string } = {},
): Promise<KeyVault> {
  const keys = new Map<string, Material[]>();

  const bundle = (name: string, key: Material): Reply => {
    const jwk = key.rsa?.publicKey.export({ format: 'jwk' });
    return {
      status: 200,
      body: {
        key: {
          kid: `${server.origin}/keys/${name}/${key.version}`,
          kty: key.kind,
          key_ops: key.operations,
          ...(jwk && { n: jwk.n, e: jwk.e }),
        },
        attributes: {
          enabled: key.enabled,
          ...(key.expires !== undefined && { exp: key.expires }),
          ...(key.notBefore !== undefined && { nbf: key.notBefore }),
          recoveryLevel: 'Recoverable',
        },
      },
    };
  };

  const answer = (asked: Asked): Answering => {
    const { authorization } = asked.headers;
    const token = typeof authorization === 'string' ? authorization.replace(/^Bearer /, '') : undefined;
    vault.requests.push({
      method: asked.method,
      path: asked.url.pathname,
      token: token !== undefined,
      body: asked.body,
    });
    const instead = vault.instead?.(asked);
    if (instead !== undefined) return instead;
    const problem = token === undefined ? 'no token' : authority.problemOf(token, AUDIENCE);
    if (problem !== undefined)
      return {
        ...refusal(401, 'Unauthorized', `AKV10000: ${problem}`),
        headers: {
          'www-authenticate': `Bearer authorization="${authority.origin}/${authority.tenantId}", resource="${AUDIENCE}"`,
        },
      };
    if (!asked.url.searchParams.has('api-version')) return refusal(400, 'BadParameter', 'no api-version');
    const [, collection, name = '', version = '', operation = 'get'] = asked.url.pathname.split('/');
    if (collection !== 'keys') return refusal(404, 'NotFound', 'no such collection');
    if (!vault.allowed.has(operation as 'get'))
      return refusal(403, 'Forbidden', 'Caller is not authorized to perform action', 'ForbiddenByRbac');
    const versions = keys.get(name.toLowerCase()) ?? [];
    const key = version === '' ? versions.at(-1) : versions.find((one) => one.version === version);
    if (key === undefined) return refusal(404, 'KeyNotFound', `A key with (name/id) ${name} was not found`);
    if (operation === 'get') return bundle(name, key);
    return use(operation, key, asked.body, `${server.origin}/keys/${name}/${key.version}`);
  };
  const server: TestServer = await httpsServer(ca, answer, options);

  const vault: KeyVault = {
    origin: server.origin,
    allowed: new Set(['get', 'wrapkey', 'unwrapkey']),
    instead: undefined,
    requests: [],
    addKey(name, kind = 'RSA') {
      const key: Material = {
        version: randomBytes(16).toString('hex'),
        kind,
        enabled: true,
        operations: ['encrypt', 'decrypt', 'wrapKey', 'unwrapKey'],
        ...(kind === 'RSA' && { rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }) }),
        ...(kind === 'oct-HSM' && { aes: randomBytes(32) }),
      };
      keys.set(name.toLowerCase(), [...(keys.get(name.toLowerCase()) ?? []), key]);
      return key;
    },
    deleteKey: (name) => void keys.delete(name.toLowerCase()),
    kill: () => server.kill(),
    start: () => server.start(),
  };
  return vault;
}

/** Dates bind wrapping only: Key Vault unwraps with keys that have expired or are not valid yet. */
function use(operation: string, key: Material, body: string, kid: string): Reply {
  const name = operation === 'wrapkey' ? 'wrapKey' : 'unwrapKey';
  const forbid = (why: string, code: string) =>
    refusal(403, 'Forbidden', `Operation ${name} is not allowed on ${why}.`, code);
  if (!key.enabled) return forbid('a disabled key', 'KeyDisabled');
  const now = Date.now() / 1000;
  if (name === 'wrapKey' && key.expires !== undefined && key.expires <= now)
    return forbid('an expired key', 'KeyExpired');
  if (name === 'wrapKey' && key.notBefore !== undefined && key.notBefore > now)
    return forbid('a key that is not yet valid', 'KeyNotYetValid');
  if (!key.operations.includes(name)) return forbid('this key', 'KeyOperationForbidden');
  const bad = refusal(400, 'BadParameter', 'The parameter is incorrect.');
  try {
    const { alg, value } = JSON.parse(body) as { alg?: string; value?: string };
    const bytes = Buffer.from(value ?? '', 'base64url');
    const result = crypt(name, key, alg, bytes);
    return result === undefined ? bad : { status: 200, body: { kid, value: result.toString('base64url') } };
  } catch {
    return bad;
  }
}

function crypt(name: string, key: Material, alg: string | undefined, bytes: Buffer): Buffer | undefined {
  const oaep = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
  if (alg === 'RSA-OAEP-256' && key.rsa !== undefined)
    return name === 'wrapKey'
      ? publicEncrypt({ key: key.rsa.publicKey, ...oaep }, bytes)
      : privateDecrypt({ key: key.rsa.privateKey, ...oaep }, bytes);
  if (alg === 'A256KW' && key.aes !== undefined) {
    const cipher = (name === 'wrapKey' ? createCipheriv : createDecipheriv)(
      'id-aes256-wrap',
      key.aes,
      A256KW_IV,
    );
    return Buffer.concat([cipher.update(bytes), cipher.final()]);
  }
  return undefined;
}

function refusal(status: number, code: string, message: string, inner?: string): Reply {
  return {
    status,
    body: { error: { code, message, ...(inner !== undefined && { innererror: { code: inner } }) } },
  };
}
