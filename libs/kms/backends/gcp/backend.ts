import { zero } from '@asterism/bytes/bytes';
import { toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { checkEnvelopeKey, checkUnwrapped } from '../../checks.ts';
import { crc32c } from '../../crc32c.ts';
import { KmsError, type KmsErrorCode } from '../../errors.ts';
import type { HttpAnswer } from '../../google-http.ts';
import { errorName, type GoogleRest, openGoogleRest, statusOf } from '../../google-rest.ts';
import type { Kek, KekStatus, WrappedKey } from '../../kek.ts';
import type { Settings } from '../../settings.ts';
import { parseCryptoKey, parseDecrypted, parseEncrypted } from './answers.ts';

const BASE = 'https://cloudkms.googleapis.com';
const SCOPE = 'https://www.googleapis.com/auth/cloudkms';
/** Encrypted by the crypto key, as v2.6 numbered it. */
const MECHANISM = 1;
const MAX_WRAPPED_BYTES = 8192;
const MAX_ANSWER_BYTES = 64 * 1024;
const VERSION = /^\/cryptoKeyVersions\/[1-9][0-9]{0,9}$/;

/**
 * A symmetric key of Google Cloud KMS (REST v1).
 *
 * @param options for tests
 * @throws KmsError ERR_KMS_SETTINGS | ERR_KMS_CREDENTIALS
 */
export async function open(settings: Settings, options: { readonly timeoutMs?: number } = {}): Promise<Kek> {
  const { projectID, location, keyRing, keyName } = settings.parameters;
  if (!projectID || !location || !keyRing || !keyName)
    throw new KmsError('ERR_KMS_SETTINGS', 'the gcp backend needs projectID, location, keyRing and keyName');
  const rest = await openGoogleRest(settings, { service: 'KMS', base: BASE, scope: SCOPE, ...options });
  return new CloudKmsKek(
    rest,
    `projects/${projectID}/locations/${location}/keyRings/${keyRing}/cryptoKeys/${keyName}`,
  );
}

class CloudKmsKek implements Kek {
  readonly #rest: GoogleRest;
  /** Name of the CryptoKey. */
  readonly #key: string;

  constructor(rest: GoogleRest, key: string) {
    this.#rest = rest;
    this.#key = key;
  }

  async wrap(key: Uint8Array, context: string, signal?: AbortSignal): Promise<WrappedKey> {
    checkEnvelopeKey(key);
    const request = {
      plaintext: toBase64(key),
      plaintextCrc32c: String(crc32c(key)),
      ...authenticated(context),
    };
    const answer = await this.#post(':encrypt', request, signal);
    if (answer.status !== 200) throw this.#refusal(answer, 'wrap', 'ERR_KMS_ANSWER');
    const { name, ciphertext, ciphertextCrc32c, verified } = this.#understood(() =>
      parseEncrypted(answer.bytes),
    );
    if (!this.#isVersion(name)) throw this.#nonsense('encrypted with another key');
    if (!verified) throw this.#nonsense('did not verify the checksums of what it was sent');
    if (crc32c(ciphertext) !== ciphertextCrc32c)
      throw this.#nonsense('a ciphertext that was damaged on its way');
    return { mechanism: MECHANISM, keyId: name, wrappedKey: ciphertext };
  }

  async unwrap(wrapped: WrappedKey, context: string | undefined, signal?: AbortSignal): Promise<Uint8Array> {
    const { mechanism, keyId, wrappedKey } = wrapped;
    const refuse = (why: string) => new KmsError('ERR_KMS_UNWRAP', `the wrapped key ${why}`);
    if (mechanism !== MECHANISM)
      throw refuse(`has mechanism ${mechanism}, not ${MECHANISM} of Google Cloud KMS`);
    if (!this.#isVersion(keyId)) throw refuse(`was wrapped by another key than ${this.#key}`);
    if (wrappedKey.length === 0 || wrappedKey.length > MAX_WRAPPED_BYTES)
      throw refuse(`has ${wrappedKey.length} bytes`);
    const request = {
      ciphertext: toBase64(wrappedKey),
      ciphertextCrc32c: String(crc32c(wrappedKey)),
      ...(context !== undefined && authenticated(context)),
    };
    const answer = await this.#post(':decrypt', request, signal);
    if (answer.status !== 200) throw this.#refusal(answer, 'unwrap', 'ERR_KMS_UNWRAP');
    const { plaintext, plaintextCrc32c } = this.#understood(() => parseDecrypted(answer.bytes));
    zero(answer.bytes);
    try {
      if (crc32c(plaintext) !== plaintextCrc32c) throw this.#nonsense('a key that was damaged on its way');
      checkUnwrapped(plaintext, this.#rest.host);
    } catch (error) {
      zero(plaintext);
      throw error;
    }
    return plaintext;
  }

  async status(signal?: AbortSignal): Promise<KekStatus> {
    const answer = await this.#rest.call(
      { method: 'GET', path: `/v1/${this.#key}`, maxBytes: MAX_ANSWER_BYTES },
      signal,
    );
    if (answer.status !== 200) throw this.#refusal(answer, 'describe the key', 'ERR_KMS_ANSWER');
    const { name, purpose, primary } = this.#understood(() => parseCryptoKey(answer.bytes));
    if (name !== this.#key) throw this.#nonsense('described another key');
    if (purpose !== 'ENCRYPT_DECRYPT')
      return { keyId: name, enabled: false, detail: `its purpose is ${purpose}, not ENCRYPT_DECRYPT` };
    if (primary === undefined) return { keyId: name, enabled: false, detail: 'it has no primary version' };
    if (!this.#isVersion(primary.name)) throw this.#nonsense('named a version of another key as primary');
    return {
      keyId: primary.name,
      enabled: primary.state === 'ENABLED',
      detail: `${primary.state}, ${primary.algorithm}, ${primary.protectionLevel}`,
    };
  }

  async close(): Promise<void> {
    this.#rest.close();
  }

  #isVersion(name: string): boolean {
    return name.startsWith(this.#key) && VERSION.test(name.slice(this.#key.length));
  }

  async #post(method: string, request: object, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    const body = toUtf8(JSON.stringify(request));
    const headers = { 'content-type': 'application/json' };
    const path = `/v1/${this.#key}${method}`;
    try {
      return await this.#rest.call(
        { method: 'POST', path, headers, body, maxBytes: MAX_ANSWER_BYTES },
        signal,
      );
    } finally {
      zero(body);
    }
  }

  /** @param invalid what it means that the service refuses the request itself */
  #refusal(answer: HttpAnswer, task: string, invalid: KmsErrorCode): KmsError {
    const said = `${this.#rest.host} does not ${task}: ${statusOf(answer)}`;
    if (answer.status === 404)
      return new KmsError(
        'ERR_KMS_KEY_NOT_FOUND',
        `${said}: there is no key ${this.#key} for these credentials`,
      );
    const name = answer.status === 400 ? errorName(answer) : undefined;
    if (name === 'FAILED_PRECONDITION')
      return new KmsError(
        'ERR_KMS_KEY_DISABLED',
        `${said}: the version of ${this.#key} is disabled or destroyed, or the key is not for encryption; enable it`,
      );
    if (name === 'INVALID_ARGUMENT')
      return new KmsError(invalid, `${said}: it refuses these bytes for ${this.#key}`);
    return new KmsError('ERR_KMS_ANSWER', `${said}, which is no answer of Google Cloud KMS`);
  }

  #understood<T>(parse: () => T): T {
    try {
      return parse();
    } catch (cause) {
      if (!(cause instanceof ParseError)) throw cause;
      throw this.#nonsense('what is no answer of Google Cloud KMS', cause);
    }
  }

  #nonsense(what: string, cause?: unknown): KmsError {
    return new KmsError('ERR_KMS_ANSWER', `${this.#rest.host} answered: ${what}`, { cause });
  }
}

function authenticated(context: string) {
  const bytes = toUtf8(context);
  return {
    additionalAuthenticatedData: toBase64(bytes),
    additionalAuthenticatedDataCrc32c: String(crc32c(bytes)),
  };
}
