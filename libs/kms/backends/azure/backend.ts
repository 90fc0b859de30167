import type { CryptographyClient, KeyClient, KeyVaultKey } from '@azure/keyvault-keys';
import { azureCall, type Refusal } from '../../azure-errors.ts';
import { azureHttp } from '../../azure-http.ts';
import { azureIdentity, pipelineClient } from '../../azure-identity.ts';
import { checkEnvelopeKey, checkUnwrapped } from '../../checks.ts';
import { chosenEndpoint } from '../../endpoint.ts';
import { KmsError } from '../../errors.ts';
import type { Kek, KekStatus, WrappedKey } from '../../kek.ts';
import type { Settings } from '../../settings.ts';
import { type Algorithm, KEY_VERSION, MECHANISMS, readWrappedKey } from './wrapped-key.ts';

/** Clients of versions of the key that are kept: the one in force, and a few that old blobs name. */
const MAX_CLIENTS = 16;

/**
 * A key of Azure Key Vault (RSA, RSA-OAEP-256) or of a Managed HSM (RSA too, or AES, A256KW). Neither binds a context;
 * the envelope does.
 *
 * @throws KmsError ERR_KMS_SETTINGS
 */
export async function open(settings: Settings): Promise<Kek> {
  const { vaultName, vaultType, keyName } = settings.parameters;
  if (vaultName === undefined || vaultType === undefined || keyName === undefined)
    throw new KmsError('ERR_KMS_SETTINGS', 'Azure Key Vault needs vaultName, vaultType and keyName');
  const home = `https://${vaultName}.${vaultType}`.toLowerCase();
  const endpoint = chosenEndpoint(settings.parameters.endpoint, settings, 'KMS') ?? new URL(home);
  if (endpoint.pathname !== '/')
    throw new KmsError('ERR_KMS_SETTINGS', `the endpoint ${endpoint.host} of a vault has no path`);
  const identity = await azureIdentity('KMS', settings, {
    host: new URL(home).hostname,
    scope: `https://${vaultType}/.default`,
  });
  const http = azureHttp(({ origin }) => origin === endpoint.origin, settings.credentials.caCertificate);
  const sdk = await import('@azure/keyvault-keys');
  // A new object each time: the SDK writes into it, and its name for the User-Agent would grow with each client.
  const options = () => ({
    httpClient: pipelineClient(http),
    retryOptions: { maxRetries: 0 },
    // It compares the host called with the service that the token is for: the real vaults' addresses pass. One that the
    // user named cannot; the credential hands out no token of another service either way.
    disableChallengeResourceVerification: endpoint.origin !== home,
    ...(endpoint.protocol === 'http:' && { allowInsecureConnection: true }),
  });
  const keys = new sdk.KeyClient(endpoint.origin, identity.credential, options());
  const clientOf = (version: string) =>
    // As a key without dates: with an identifier the SDK asks for the key first, and then refuses by itself to unwrap
    // with one that has expired, which Key Vault allows.
    new sdk.CryptographyClient(
      {
        id: `${endpoint.origin}/keys/${keyName}/${version}`,
        name: keyName,
        properties: { vaultUrl: endpoint.origin, name: keyName, version },
      },
      identity.credential,
      options(),
    );
  return new AzureKek(keys, clientOf, `${home}/keys/${keyName}`, keyName, () => {
    identity.close();
    http.close();
  });
}

/** The SDK's client of one version of the key. */
interface VersionClient {
  readonly client: CryptographyClient;
  answered: boolean;
  /** The call that goes alone; never fails. */
  first: Promise<void> | undefined;
}

class AzureKek implements Kek {
  readonly #keys: KeyClient;
  readonly #clientOf: (version: string) => CryptographyClient;
  readonly #keyUrl: string;
  readonly #keyName: string;
  readonly #closeAll: () => void;
  readonly #clients = new Map<string, VersionClient>();

  constructor(
    keys: KeyClient,
    clientOf: (version: string) => CryptographyClient,
    keyUrl: string,
    keyName: string,
    closeAll: () => void,
  ) {
    this.#keys = keys;
    this.#clientOf = clientOf;
    this.#keyUrl = keyUrl;
    this.#keyName = keyName;
    this.#closeAll = closeAll;
  }

  async wrap(key: Uint8Array, _context: string, signal?: AbortSignal): Promise<WrappedKey> {
    checkEnvelopeKey(key);
    // Which version is in force, Key Vault's SDK says in no other answer.
    const current = await this.#current(signal);
    const algorithm = algorithmOf(current, this.#keyUrl);
    const version = versionOf(current, this.#keyName, this.#keyUrl);
    const { result } = await this.#call('wrap', version, signal, (client, until) =>
      client.wrapKey(algorithm, key, { abortSignal: until }),
    );
    if (!(result instanceof Uint8Array) || result.length <= key.length || result.length > 8192)
      throw new KmsError('ERR_KMS_ANSWER', `${this.#keyUrl} wrapped to something of no such length`);
    return {
      mechanism: MECHANISMS[algorithm],
      keyId: `${this.#keyUrl}/${version}`,
      wrappedKey: Uint8Array.from(result),
    };
  }

  async unwrap(wrapped: WrappedKey, context: string | undefined, signal?: AbortSignal): Promise<Uint8Array> {
    const { version, algorithm, bytes } = readWrappedKey(wrapped, this.#keyUrl, context === undefined);
    const { result } = await this.#call('unwrap', version, signal, (client, until) =>
      client.unwrapKey(algorithm, bytes, { abortSignal: until }),
    );
    if (!(result instanceof Uint8Array))
      throw new KmsError('ERR_KMS_ANSWER', `${this.#keyUrl} unwrapped nothing`);
    const key = Uint8Array.from(result);
    result.fill(0);
    checkUnwrapped(key, this.#keyUrl);
    return key;
  }

  async status(signal?: AbortSignal): Promise<KekStatus> {
    const key = await this.#current(signal);
    const { enabled, notBefore, expiresOn } = key.properties;
    const now = Date.now();
    const problems = [
      ...(enabled === false ? ['disabled'] : []),
      ...(notBefore !== undefined && notBefore.getTime() > now
        ? [`not before ${notBefore.toISOString()}`]
        : []),
      ...(expiresOn !== undefined && expiresOn.getTime() <= now
        ? [`expired ${expiresOn.toISOString()}`]
        : []),
      ...['wrapKey', 'unwrapKey']
        .filter((operation) => key.keyOperations !== undefined && !key.keyOperations.includes(operation))
        .map((operation) => `without the operation ${operation}`),
    ];
    return {
      keyId: `${this.#keyUrl}/${versionOf(key, this.#keyName, this.#keyUrl)}`,
      enabled: problems.length === 0,
      detail: [
        algorithmOf(key, this.#keyUrl),
        key.keyType,
        ...(problems.length ? problems : ['enabled']),
      ].join(', '),
    };
  }

  async close(): Promise<void> {
    this.#closeAll();
  }

  #current(signal: AbortSignal | undefined): Promise<KeyVaultKey> {
    return azureCall(
      'KMS',
      `status of ${this.#keyUrl}`,
      signal,
      (until) => this.#keys.getKey(this.#keyName, { abortSignal: until }),
      (refusal, cause) => keyError(refusal, cause, this.#keyUrl),
    );
  }

  #call<T>(
    operation: 'wrap' | 'unwrap',
    version: string,
    signal: AbortSignal | undefined,
    work: (client: CryptographyClient, until: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return azureCall(
      'KMS',
      `${operation} by ${this.#keyUrl}/${version}`,
      signal,
      async (until) => {
        const held = this.#client(version);
        // The SDK holds back the body of its first request until it knows whom to ask for a token, and forgets it when
        // a second one gets there before: until one call was answered, they go one by one.
        while (held.first !== undefined) await held.first;
        const done = work(held.client, until);
        if (held.answered) return done;
        held.first = done
          .then(
            () => true,
            () => false,
          )
          .then((answered) => {
            held.answered = answered;
            held.first = undefined;
          });
        return done;
      },
      (refusal, cause) => {
        const known = keyError(refusal, cause, this.#keyUrl);
        if (known !== undefined || refusal.status !== 400) return known;
        return operation === 'unwrap'
          ? new KmsError(
              'ERR_KMS_UNWRAP',
              `${this.#keyUrl} refuses the wrapped key (${cause.message}): it is damaged, or of another key`,
              { cause },
            )
          : new KmsError(
              'ERR_KMS_SETTINGS',
              `${this.#keyUrl} cannot wrap (${cause.message}): it must be an RSA key, or an AES key of 256 bits`,
              { cause },
            );
      },
    );
  }

  #client(version: string): VersionClient {
    const found = this.#clients.get(version);
    if (found !== undefined) return found;
    if (this.#clients.size >= MAX_CLIENTS) this.#clients.delete(this.#clients.keys().next().value!);
    const made = { client: this.#clientOf(version), answered: false, first: undefined };
    this.#clients.set(version, made);
    return made;
  }
}

function algorithmOf({ keyType }: KeyVaultKey, keyUrl: string): Algorithm {
  if (keyType === 'RSA' || keyType === 'RSA-HSM') return 'RSA-OAEP-256';
  if (keyType === 'oct' || keyType === 'oct-HSM') return 'A256KW';
  throw new KmsError('ERR_KMS_SETTINGS', `${keyUrl} is neither an RSA nor an AES key: it cannot wrap keys`);
}

function versionOf(key: KeyVaultKey, keyName: string, keyUrl: string): string {
  const { version } = key.properties;
  if (key.name.toLowerCase() !== keyName.toLowerCase() || version === undefined || !KEY_VERSION.test(version))
    throw new KmsError('ERR_KMS_ANSWER', `asked for ${keyUrl}, the vault answered with another key`);
  return version;
}

/** Reasons that Key Vault names below `Forbidden`. */
const NOT_IN_FORCE = /^Key(Disabled|Expired|NotYetValid)$/;

function keyError({ status, code }: Refusal, cause: Error, keyUrl: string): KmsError | undefined {
  if (status === 403 && NOT_IN_FORCE.test(code))
    return new KmsError(
      'ERR_KMS_KEY_DISABLED',
      `${keyUrl} is not in force (${code}): enable it, or change its dates`,
      { cause },
    );
  if (status === 404 || (status === 409 && /^ObjectIs(BeingDeleted|DeletedButRecoverable)$/.test(code)))
    return new KmsError(
      'ERR_KMS_KEY_NOT_FOUND',
      `${keyUrl} or its version is not there: check its name, or recover it while it is soft-deleted`,
      { cause },
    );
  return undefined;
}
