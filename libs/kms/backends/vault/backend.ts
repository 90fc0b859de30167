import { fromUtf8, toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { checkEnvelopeKey, checkUnwrapped } from '../../checks.ts';
import { chosenEndpoint } from '../../endpoint.ts';
import { KmsError, type KmsErrorCode } from '../../errors.ts';
import type { Kek, KekStatus, WrappedKey } from '../../kek.ts';
import type { Settings } from '../../settings.ts';
import { parseDecrypted, parseEncrypted, parseKey, type TransitKey, versionOf } from './answers.ts';
import { type VaultAnswer, VaultClient, type VaultRequest } from './client.ts';
import { type Tokens, tokensOf } from './tokens.ts';

/** Encrypted by the transit engine with associated data; the wrapped key is the ciphertext as text. */
const MECHANISM = 1;
/** Those that bind associated data, with keys as strong as what they wrap. */
const KEY_TYPES = new Set(['aes256-gcm96', 'chacha20-poly1305', 'xchacha20-poly1305']);
/** How long it is believed what the server last said of the key. */
const KEY_FRESH_MS = 60_000;

/**
 * A key of the transit engine of OpenBao or HashiCorp Vault.
 *
 * @param options for tests
 * @throws KmsError ERR_KMS_SETTINGS
 */
export async function open(settings: Settings, options: { readonly timeoutMs?: number } = {}): Promise<Kek> {
  const { address, mount = 'transit', keyName, namespace } = settings.parameters;
  const url = chosenEndpoint(address, settings, 'KMS');
  if (url === undefined || keyName === undefined)
    throw new KmsError('ERR_KMS_SETTINGS', 'the vault backend needs address and keyName');
  const client = new VaultClient(url, {
    ca: settings.credentials.caCertificate,
    namespace,
    ...options,
  });
  return new TransitKek(client, tokensOf(settings, client), mount.replace(/\/+$/, ''), keyName);
}

class TransitKek implements Kek {
  readonly #client: VaultClient;
  readonly #tokens: Tokens;
  readonly #mount: string;
  readonly #keyName: string;
  #checkedAt = Number.NEGATIVE_INFINITY;

  constructor(client: VaultClient, tokens: Tokens, mount: string, keyName: string) {
    this.#client = client;
    this.#tokens = tokens;
    this.#mount = mount;
    this.#keyName = keyName;
  }

  get #where(): string {
    return `the key ${this.#mount}/${this.#keyName} at ${this.#client.host}`;
  }

  async wrap(key: Uint8Array, context: string, signal?: AbortSignal): Promise<WrappedKey> {
    checkEnvelopeKey(key);
    // The engine makes a key that is not there when it is asked to encrypt, where the token allows that.
    if (performance.now() - this.#checkedAt > KEY_FRESH_MS) await this.status(signal);
    const answer = await this.#call(
      {
        method: 'POST',
        path: `${this.#mount}/encrypt/${this.#keyName}`,
        body: { plaintext: toBase64(key), associated_data: toBase64(toUtf8(context)) },
      },
      signal,
    );
    if (answer.status !== 200) throw this.#refusal(answer, 'wrap', 'ERR_KMS_ANSWER');
    const { ciphertext, version } = this.#understood(() => parseEncrypted(answer.body));
    return { mechanism: MECHANISM, keyId: this.#keyId(version), wrappedKey: toUtf8(ciphertext) };
  }

  async unwrap(wrapped: WrappedKey, context: string | undefined, signal?: AbortSignal): Promise<Uint8Array> {
    const answer = await this.#call(
      {
        method: 'POST',
        path: `${this.#mount}/decrypt/${this.#keyName}`,
        body: {
          ciphertext: this.#ciphertextOf(wrapped),
          ...(context !== undefined && { associated_data: toBase64(toUtf8(context)) }),
        },
      },
      signal,
    );
    if (answer.status !== 200) throw this.#refusal(answer, 'unwrap', 'ERR_KMS_UNWRAP');
    const key = this.#understood(() => parseDecrypted(answer.body));
    checkUnwrapped(key, this.#where);
    return key;
  }

  async status(signal?: AbortSignal): Promise<KekStatus> {
    const path = `${this.#mount}/keys/${this.#keyName}`;
    const answer = await this.#call({ method: 'GET', path }, signal);
    if (answer.status !== 200) throw this.#refusal(answer, 'find', 'ERR_KMS_ANSWER');
    const key = this.#understood(() => parseKey(answer.body));
    this.#validate(key);
    this.#checkedAt = performance.now();
    return {
      keyId: this.#keyId(key.latestVersion),
      enabled: !key.softDeleted,
      detail: `${key.type}, version ${key.latestVersion}, unwraps from version ${Math.max(1, key.minDecryptionVersion)}${key.softDeleted ? ', deleted (it can be restored)' : ''}`,
    };
  }

  async close(): Promise<void> {
    this.#client.close();
  }

  #keyId(version: number): string {
    return `${this.#mount}/${this.#keyName}:v${version}`;
  }

  /** @throws KmsError ERR_KMS_SETTINGS */
  #validate({ type, derived, exportable }: TransitKey): void {
    const refuse = (why: string) => new KmsError('ERR_KMS_SETTINGS', `${this.#where} ${why}`);
    if (!KEY_TYPES.has(type))
      throw refuse(`is of type ${type.replaceAll(/[^\w-]/g, '?')}; make one of type aes256-gcm96`);
    if (derived) throw refuse('is made for key derivation; make one without derived=true');
    if (exportable)
      throw refuse(
        'can be exported, so it may have copies elsewhere; make one that cannot be exported or backed up',
      );
  }

  /**
   * A request with a token; with another one where the server does not know the first.
   * @throws KmsError ERR_KMS_CREDENTIALS, ERR_KMS_DENIED
   */
  async #call(request: VaultRequest, signal: AbortSignal | undefined): Promise<VaultAnswer> {
    for (let attempt = 1; ; attempt++) {
      const token = await this.#tokens.get(signal);
      const answer = await this.#client.send({ ...request, token }, signal);
      if (answer.status !== 403) return answer;
      // A 403 means either; whoever is known may look at himself (policy `default`).
      const self = await this.#client.send({ method: 'GET', path: 'auth/token/lookup-self', token }, signal);
      if (self.status === 200)
        throw new KmsError(
          'ERR_KMS_DENIED',
          `${this.#client.host} does not allow ${request.method} ${request.path} to these credentials; add it to their policy`,
        );
      if (!this.#tokens.refused(token) || attempt === 2)
        throw new KmsError(
          'ERR_KMS_CREDENTIALS',
          `${this.#client.host} does not accept the token: it is wrong, has run out, or lacks the policy default; give another`,
        );
    }
  }

  #ciphertextOf({ wrappedKey }: WrappedKey): string {
    try {
      const ciphertext = fromUtf8(wrappedKey);
      versionOf(ciphertext);
      return ciphertext;
    } catch (cause) {
      if (!(cause instanceof ParseError)) throw cause;
      throw new KmsError(
        'ERR_KMS_UNWRAP',
        'the wrapped key was not made by a transit engine, or is damaged; restore it from a backup',
        { cause },
      );
    }
  }

  #understood<T>(parse: () => T): T {
    try {
      return parse();
    } catch (cause) {
      if (!(cause instanceof ParseError)) throw cause;
      throw new KmsError(
        'ERR_KMS_ANSWER',
        `${this.#client.host} answers what makes no sense: ${cause.message}`,
        {
          cause,
        },
      );
    }
  }

  /** The server's words are all that tells these cases apart; without them it is `otherwise`. */
  #refusal({ status, said }: VaultAnswer, what: string, otherwise: KmsErrorCode): KmsError {
    const why = said === '' ? `${status}` : `${status}, ${said}`;
    if (status === 404 || (status === 400 && /\bkey not found\b/.test(said)))
      return new KmsError(
        'ERR_KMS_KEY_NOT_FOUND',
        `${this.#where} is not there (${why}); check keyName, mount and namespace, or make it`,
      );
    if (status === 400 && /soft-deleted|disallowed by policy/.test(said))
      return new KmsError(
        'ERR_KMS_KEY_DISABLED',
        `${this.#where} does not ${what} (${why}); restore it, or lower its min_decryption_version`,
      );
    if (status === 400)
      return new KmsError(
        otherwise,
        `${this.#where} does not ${what} this (${why}); it is damaged, or was made with another key or for another use`,
      );
    return new KmsError('ERR_KMS_ANSWER', `${this.#client.host} answers ${why}`);
  }
}
