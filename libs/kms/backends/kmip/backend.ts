import { randomBytes } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import { concat, zero } from '@asterism/bytes/bytes';
import { toUtf8 } from '@asterism/bytes/encoding';
import { checkEnvelopeKey, checkUnwrapped } from '../../checks.ts';
import { KmsError } from '../../errors.ts';
import { ENVELOPE_KEY_BYTES, type Kek, type KekStatus, type WrappedKey } from '../../kek.ts';
import type { Settings } from '../../settings.ts';
import { KmipClient, unlessAborted } from './client.ts';
import { KmipRefusal, meaningOf } from './failures.ts';
import { type FoundKey, findKey } from './find-key.ts';
import type { KmipVersion } from './messages.ts';
import { decryptGcm, encryptGcm, getAttributes, keyWrap, type Operation } from './operations.ts';
import { MODE, REASON, STATE_ACTIVE, STATES } from './tags.ts';

/** AES-GCM by Encrypt, the context as additional data: 12 bytes of IV, the ciphertext, 16 bytes of tag. */
const MECHANISM_GCM = 1;
/** AES Key Wrap (RFC 3394) by Encrypt: 8 bytes more than the key. */
const MECHANISM_KEY_WRAP = 2;
const IV_BYTES = 12;
const GCM_BYTES = IV_BYTES + ENVELOPE_KEY_BYTES + 16;
const KEY_WRAP_BYTES = ENVELOPE_KEY_BYTES + 8;
const DEFAULT_PORT = '5696';

/**
 * A KEK on a KMIP server. Nothing is sent before it is used.
 *
 * @param settings as the catalogue has them for `kmip`
 * @throws KmsError ERR_KMS_SETTINGS | ERR_KMS_CREDENTIALS
 */
export async function open(settings: Settings): Promise<Kek> {
  const { host = '', port = DEFAULT_PORT, keyName = '', version = '1.4' } = settings.parameters;
  const { serverName = host } = settings.parameters;
  if (Number(port) > 65535)
    throw new KmsError('ERR_KMS_SETTINGS', `${port} is no port: 65535 is the highest`);
  const { caCertificate, clientCertificate, clientKey, username, password } = settings.credentials;
  if (!caCertificate || !clientCertificate || !clientKey)
    throw new KmsError(
      'ERR_KMS_CREDENTIALS',
      'a KMIP server needs caCertificate, clientCertificate and clientKey',
    );
  if (password !== undefined && username === undefined)
    throw new KmsError('ERR_KMS_CREDENTIALS', 'a password for the KMIP server needs a username');
  const where = `the KMIP server ${host}:${port}`;
  const client = new KmipClient({
    host: withoutBrackets(host),
    port: Number(port),
    serverName: withoutBrackets(serverName),
    secureContext: secureContext(caCertificate, clientCertificate, clientKey),
    where,
    version: version as KmipVersion,
    login: username === undefined ? undefined : { username, password },
  });
  return new KmipKek(client, version as KmipVersion, keyName, where);
}

/** An IPv6 address as connections take it. */
const withoutBrackets = (host: string) => host.replace(/^\[(.*)\]$/, '$1');

function secureContext(ca: string, cert: string, key: string) {
  try {
    // The authority of the user only: none of the public ones vouches for a home of keys.
    return createSecureContext({ ca, cert, key, minVersion: 'TLSv1.2' });
  } catch (cause) {
    throw new KmsError(
      'ERR_KMS_CREDENTIALS',
      'caCertificate, clientCertificate and clientKey cannot be used: each must be PEM, and the key that of the certificate',
      { cause },
    );
  }
}

class KmipKek implements Kek {
  readonly #client: KmipClient;
  readonly #version: KmipVersion;
  readonly #keyName: string;
  readonly #where: string;
  /** The key, once it was asked for. */
  #key: Promise<FoundKey> | undefined;

  constructor(client: KmipClient, version: KmipVersion, keyName: string, where: string) {
    this.#client = client;
    this.#version = version;
    this.#keyName = keyName;
    this.#where = where;
  }

  async wrap(key: Uint8Array, context: string, signal?: AbortSignal): Promise<WrappedKey> {
    checkEnvelopeKey(key);
    const { id, mode } = await this.#knownKey(signal);
    if (mode === MODE.nistKeyWrap) {
      const wrappedKey = await this.#use(id, keyWrap('encrypt', id, key), signal);
      if (wrappedKey.length !== KEY_WRAP_BYTES)
        throw new KmsError('ERR_KMS_ANSWER', `${this.#where} wrapped to ${wrappedKey.length} bytes`);
      return { mechanism: MECHANISM_KEY_WRAP, keyId: id, wrappedKey };
    }
    const iv = randomBytes(IV_BYTES);
    const { ciphertext, tag } = await this.#use(id, encryptGcm(id, key, iv, toUtf8(context)), signal);
    return { mechanism: MECHANISM_GCM, keyId: id, wrappedKey: concat(iv, ciphertext, tag) };
  }

  async unwrap(
    { mechanism, keyId, wrappedKey }: WrappedKey,
    context: string | undefined,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const gcm = mechanism === MECHANISM_GCM && wrappedKey.length === GCM_BYTES;
    if (!gcm && !(mechanism === MECHANISM_KEY_WRAP && wrappedKey.length === KEY_WRAP_BYTES))
      throw this.#refused('these bytes were not wrapped by a KMIP server');
    const { id } = await this.#knownKey(signal);
    if (keyId !== id)
      throw this.#refused('this was wrapped by another key than the one in the configuration');
    const operation = gcm
      ? decryptGcm(
          id,
          { ciphertext: wrappedKey.subarray(IV_BYTES, -16), tag: wrappedKey.subarray(-16) },
          wrappedKey.subarray(0, IV_BYTES),
          context === undefined ? undefined : toUtf8(context),
        )
      : keyWrap('decrypt', id, wrappedKey);
    const key = await this.#use(id, operation, signal);
    if (key.length !== ENVELOPE_KEY_BYTES) zero(key);
    checkUnwrapped(key, this.#where);
    return key;
  }

  async status(signal?: AbortSignal): Promise<KekStatus> {
    const { id, state, length, mode } = await this.#find(signal);
    const how = mode === MODE.nistKeyWrap ? 'AES Key Wrap' : 'AES-GCM';
    return {
      keyId: id,
      enabled: state === STATE_ACTIVE,
      detail: `${stateName(state)}, AES-${length}, used by ${how}, KMIP ${this.#version}`,
    };
  }

  async close(): Promise<void> {
    this.#client.close();
  }

  /** Many that ask at once wait for one answer, which none of them can abort for the others. */
  #knownKey(signal: AbortSignal | undefined): Promise<FoundKey> {
    if (this.#key === undefined) {
      const key = this.#find();
      this.#key = key;
      key.catch(() => {
        if (this.#key === key) this.#key = undefined;
      });
    }
    return unlessAborted(this.#key, signal);
  }

  async #find(signal?: AbortSignal): Promise<FoundKey> {
    try {
      return await findKey(this.#client, this.#version, this.#keyName, this.#where, signal);
    } catch (error) {
      throw error instanceof KmipRefusal ? meaningOf(error, this.#where) : error;
    }
  }

  async #use<T>(id: string, operation: Operation<T>, signal: AbortSignal | undefined): Promise<T> {
    try {
      return await this.#client.call(operation, signal);
    } catch (error) {
      throw error instanceof KmipRefusal ? await this.#explain(error, id, signal) : error;
    }
  }

  /**
   * Servers give different reasons for the same refusal (an inactive key, say, as Wrong Key Lifecycle State, Illegal
   * Operation or Permission Denied), and some have no reason for bytes that do not decrypt. So the key is looked at.
   */
  async #explain(refusal: KmipRefusal, id: string, signal: AbortSignal | undefined): Promise<Error> {
    const { operation, reason } = refusal;
    if (operation === 'decrypt' && reason === REASON.cryptographicFailure)
      return this.#refused(refusal.message, refusal);
    // The name may be that of another key by now.
    this.#key = undefined;
    const meaning = meaningOf(refusal, this.#where);
    if (!(meaning instanceof KmsError) || meaning.code === 'ERR_KMS_CREDENTIALS') return meaning;
    try {
      const { state } = await this.#client.call(getAttributes(this.#version, id), signal);
      if (state !== STATE_ACTIVE) {
        const why = `${this.#where}: the key ${id} is ${stateName(state)}, it must be Active`;
        return new KmsError('ERR_KMS_KEY_DISABLED', why, { cause: refusal });
      }
    } catch (error) {
      signal?.throwIfAborted();
      const other = error instanceof KmipRefusal ? meaningOf(error, this.#where) : undefined;
      return other?.code === 'ERR_KMS_KEY_NOT_FOUND' ? other : meaning;
    }
    if (operation === 'decrypt' && reason === REASON.generalFailure)
      return this.#refused(refusal.message, refusal);
    return meaning;
  }

  #refused(why: string, cause?: unknown): KmsError {
    const next = 'the wrapped key is damaged, of another KEK, or for something else';
    return new KmsError('ERR_KMS_UNWRAP', `${this.#where}: ${why}; ${next}`, { cause });
  }
}

const stateName = (state: number) => STATES[state] ?? `in the unknown state ${state}`;
