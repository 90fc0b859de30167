import { Readable } from 'node:stream';
import type { BlockBlobClient, ContainerClient, StoragePipelineOptions } from '@azure/storage-blob';
import { azureCall, type Refusal } from '../../azure-errors.ts';
import { type AzureHttp, azureHttp } from '../../azure-http.ts';
import { azureIdentity } from '../../azure-identity.ts';
import { checkObject } from '../../checks.ts';
import { chosenEndpoint } from '../../endpoint.ts';
import { KmsError } from '../../errors.ts';
import type { Settings } from '../../settings.ts';
import { type DekStore, MAX_OBJECT_BYTES, OBJECT_NAME, type StoredObject } from '../../store.ts';

/** Names in one page of a listing. A page of XML with so many stays below what the HTTP client reads. */
const PAGE = 500;

const ETAG = /^[\x21-\x7e]{1,128}$/;

/**
 * A container of Azure Blob Storage, one block blob for each DEK. The container must be there.
 * @throws KmsError ERR_STORE_SETTINGS
 */
export async function open(settings: Settings): Promise<DekStore> {
  const { account, container, prefix = '' } = settings.parameters;
  if (account === undefined || container === undefined)
    throw new KmsError('ERR_STORE_SETTINGS', 'Azure Blob Storage needs account and container');
  const usual = new URL(`https://${account}.blob.core.windows.net`);
  const endpoint = chosenEndpoint(settings.parameters.endpoint, settings, 'STORE') ?? usual;
  const { accountKey, caCertificate } = settings.credentials;
  if (endpoint.protocol === 'http:' && accountKey === undefined)
    throw new KmsError('ERR_STORE_SETTINGS', 'tokens go by https only: with plain http give an accountKey');
  const identity =
    accountKey === undefined
      ? await azureIdentity('STORE', settings, {
          host: endpoint.hostname,
          scope: 'https://storage.azure.com/.default',
        })
      : undefined;
  const http = azureHttp(({ origin }) => origin === endpoint.origin, caCertificate);
  const sdk = await import('@azure/storage-blob');
  const credential =
    accountKey === undefined ? identity?.credential : new sdk.StorageSharedKeyCredential(account, accountKey);
  const pipeline = sdk.newPipeline(credential, {
    httpClient: storageClient(http),
    // Whoever calls tries again; here it would only add up.
    retryOptions: { maxTries: 1 },
  });
  const url = `${endpoint.href.replace(/\/$/, '')}/${container}`;
  return new AzureBlobStore(new sdk.ContainerClient(url, pipeline), url, prefix, () => {
    identity?.close();
    http.close();
  });
}

class AzureBlobStore implements DekStore {
  readonly #container: ContainerClient;
  readonly #url: string;
  readonly #prefix: string;
  readonly #closeAll: () => void;

  constructor(container: ContainerClient, url: string, prefix: string, closeAll: () => void) {
    this.#container = container;
    this.#url = url;
    this.#prefix = prefix;
    this.#closeAll = closeAll;
  }

  async get(name: string, signal?: AbortSignal): Promise<StoredObject | undefined> {
    checkObject(name);
    return this.#call(
      `reading ${name}`,
      signal,
      async (until) => {
        const { readableStreamBody, etag } = await this.#blob(name).download(0, undefined, {
          abortSignal: until,
          maxRetryRequests: 0,
        });
        const parts: Buffer[] = [];
        for await (const part of readableStreamBody ?? []) parts.push(Buffer.from(part));
        const bytes = Buffer.concat(parts);
        if (bytes.length > MAX_OBJECT_BYTES || etag === undefined || !ETAG.test(etag))
          throw new KmsError('ERR_STORE_ANSWER', `${name} in ${this.#url} is too large, or has no ETag`);
        return { bytes: new Uint8Array(bytes), version: etag };
      },
      { BlobNotFound: undefined },
    );
  }

  async create(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<'created' | 'exists'> {
    checkObject(name, bytes);
    return this.#call(
      `creating ${name}`,
      signal,
      async (until) => {
        await this.#upload(name, bytes, { ifNoneMatch: '*' }, until);
        return 'created' as const;
      },
      { BlobAlreadyExists: 'exists', ConditionNotMet: 'exists' },
    );
  }

  async replace(
    name: string,
    bytes: Uint8Array,
    version: string,
    signal?: AbortSignal,
  ): Promise<'replaced' | 'changed'> {
    checkObject(name, bytes);
    checkVersion(version);
    return this.#call(
      `replacing ${name}`,
      signal,
      async (until) => {
        await this.#upload(name, bytes, { ifMatch: version }, until);
        return 'replaced' as const;
      },
      { ConditionNotMet: 'changed', BlobNotFound: 'changed' },
    );
  }

  async *list(signal?: AbortSignal): AsyncIterable<string> {
    let next: string | undefined;
    do {
      const page = await this.#page(next, signal);
      // A server that says the same again would never end.
      if (page.next !== undefined && page.next === next)
        throw new KmsError('ERR_STORE_ANSWER', `${this.#url} lists the same page again and again`);
      next = page.next;
      yield* page.names;
    } while (next !== undefined);
  }

  async remove(name: string, version: string, signal?: AbortSignal): Promise<'removed' | 'changed'> {
    checkObject(name);
    checkVersion(version);
    const outcome = await this.#call<'removed' | 'changed'>(
      `removing ${name}`,
      signal,
      async (until) => {
        await this.#blob(name).delete({ abortSignal: until, conditions: { ifMatch: version } });
        return 'removed';
      },
      { ConditionNotMet: 'changed', BlobNotFound: 'removed' },
    );
    // A condition is not met either where there is nothing to hold it against.
    return outcome === 'changed' && (await this.get(name, signal)) === undefined ? 'removed' : outcome;
  }

  async close(): Promise<void> {
    this.#closeAll();
  }

  #blob(name: string): BlockBlobClient {
    return this.#container.getBlockBlobClient(`${this.#prefix}${name}`);
  }

  async #upload(
    name: string,
    bytes: Uint8Array,
    conditions: { ifMatch: string } | { ifNoneMatch: string },
    abortSignal: AbortSignal,
  ): Promise<void> {
    await this.#blob(name).upload(Buffer.from(bytes), bytes.length, {
      abortSignal,
      conditions,
      blobHTTPHeaders: { blobContentType: 'application/octet-stream' },
    });
  }

  #page(continuationToken: string | undefined, signal: AbortSignal | undefined) {
    return this.#call('listing', signal, async (abortSignal) => {
      const pages = this.#container
        .listBlobsFlat({ abortSignal, ...(this.#prefix !== '' && { prefix: this.#prefix }) })
        .byPage({ maxPageSize: PAGE, ...(continuationToken !== undefined && { continuationToken }) });
      const { value } = await pages.next();
      const names: string[] = [];
      for (const item of value?.segment?.blobItems ?? []) {
        const name = String(item.name);
        const own = name.startsWith(this.#prefix) ? name.slice(this.#prefix.length) : '';
        if (OBJECT_NAME.test(own)) names.push(own);
      }
      return { names, next: (value?.continuationToken as string | undefined) || undefined };
    });
  }

  /** @param outcomes what answers mean that are no failures, by the service's error code */
  async #call<T>(
    what: string,
    signal: AbortSignal | undefined,
    work: (until: AbortSignal) => Promise<T>,
    outcomes: Readonly<Record<string, T | undefined>> = {},
  ): Promise<T> {
    let outcome: { value: T } | undefined;
    try {
      return await azureCall('STORE', `${what} in ${this.#url}`, signal, work, (refusal, cause) => {
        if (/^(404|409|412)$/.test(`${refusal.status}`) && Object.hasOwn(outcomes, refusal.code))
          outcome = { value: outcomes[refusal.code] as T };
        return storeError(refusal, cause, this.#url);
      });
    } catch (error) {
      if (outcome !== undefined) return outcome.value;
      throw error;
    }
  }
}

function checkVersion(version: string): void {
  if (!ETAG.test(version)) throw new KmsError('ERR_STORE_SETTINGS', 'the version of a stored key is no ETag');
}

function storeError({ code }: Refusal, cause: Error, url: string): KmsError | undefined {
  if (code === 'ContainerNotFound' || code === 'ContainerBeingDeleted' || code === 'ResourceNotFound')
    return new KmsError(
      'ERR_STORE_NOT_FOUND',
      `there is no container ${url}: create it, or correct its name`,
      { cause },
    );
  if (code === 'AuthenticationFailed' || code === 'InvalidAuthenticationInfo')
    return new KmsError(
      'ERR_STORE_CREDENTIALS',
      `${url} does not accept the credentials (${code}): check the account key or the identity, and the clock`,
      { cause },
    );
  return undefined;
}

type StorageClient = NonNullable<StoragePipelineOptions['httpClient']>;

/** The HTTP client as the storage SDK wants it: in the shape of an older generation of Azure's SDKs. */
function storageClient(http: AzureHttp): StorageClient {
  return {
    async sendRequest(request) {
      const { url, method, body, timeout, abortSignal, streamResponseStatusCodes } = request;
      const answer = await http.exchange({
        url,
        method,
        headers: request.headers.toJson({ preserveCase: true }),
        body,
        timeoutMs: timeout,
        agent: (request as { agent?: unknown }).agent,
        signal: abortSignal,
      });
      const { status } = answer;
      // The SDK exports no way to make headers, but those of the request are of the kind.
      const headers = request.headers.clone();
      for (const name of headers.headerNames()) headers.remove(name);
      for (const [name, value] of Object.entries(answer.headers)) headers.set(name, value);
      return {
        request,
        status,
        headers,
        ...(streamResponseStatusCodes?.has(status)
          ? { readableStreamBody: Readable.from(answer.body, { objectMode: false }) }
          : { bodyAsText: answer.body.toString() }),
      };
    },
  };
}
