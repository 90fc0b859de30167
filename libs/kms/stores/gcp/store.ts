import { ParseError } from '@asterism/errors/errors';
import { checkObject } from '../../checks.ts';
import { KmsError } from '../../errors.ts';
import type { HttpAnswer } from '../../google-http.ts';
import { type GoogleRest, openGoogleRest, statusOf } from '../../google-rest.ts';
import type { Settings } from '../../settings.ts';
import { type DekStore, MAX_OBJECT_BYTES, OBJECT_NAME, type StoredObject } from '../../store.ts';
import { type ListPage, parseListPage } from './listing.ts';

const BASE = 'https://storage.googleapis.com';
const SCOPE = 'https://www.googleapis.com/auth/devstorage.read_write';
const MAX_ANSWER_BYTES = 64 * 1024;
/** A page of 1,000 names, of which others' may have 1,024 bytes each, escaped. */
const MAX_PAGE_BYTES = 8 << 20;
const PAGE = 1000;
/** A generation (int64). 0 would mean: no object is there. */
const GENERATION = /^[1-9][0-9]{0,18}$/;

/**
 * A bucket of Google Cloud Storage (JSON API v1), which is not created here. A version is the object's generation.
 *
 * @param options for tests
 * @throws KmsError ERR_STORE_SETTINGS | ERR_STORE_CREDENTIALS
 */
export async function open(
  settings: Settings,
  options: { readonly timeoutMs?: number } = {},
): Promise<DekStore> {
  const { projectID, bucket, prefix = '' } = settings.parameters;
  if (!projectID || !bucket)
    throw new KmsError('ERR_STORE_SETTINGS', 'the gcp store needs projectID and bucket');
  const rest = await openGoogleRest(settings, { service: 'STORE', base: BASE, scope: SCOPE, ...options });
  return new CloudStorage(rest, bucket, prefix);
}

class CloudStorage implements DekStore {
  readonly #rest: GoogleRest;
  readonly #bucket: string;
  readonly #prefix: string;

  constructor(rest: GoogleRest, bucket: string, prefix: string) {
    this.#rest = rest;
    this.#bucket = bucket;
    this.#prefix = prefix;
  }

  async get(name: string, signal?: AbortSignal): Promise<StoredObject | undefined> {
    checkObject(name);
    const answer = await this.#rest.call(
      { method: 'GET', path: `${this.#object(name)}?alt=media`, maxBytes: MAX_OBJECT_BYTES },
      signal,
    );
    if (answer.status === 404) {
      await this.#checkBucket(signal);
      return undefined;
    }
    if (answer.status !== 200) throw this.#nonsense(answer);
    const version = answer.headers['x-goog-generation'];
    if (typeof version !== 'string' || !GENERATION.test(version))
      throw this.#nonsense(answer, 'without the generation of the object');
    return { bytes: answer.bytes, version };
  }

  async create(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<'created' | 'exists'> {
    checkObject(name, bytes);
    return (await this.#upload(name, bytes, '0', signal)) ? 'created' : 'exists';
  }

  async replace(
    name: string,
    bytes: Uint8Array,
    version: string,
    signal?: AbortSignal,
  ): Promise<'replaced' | 'changed'> {
    checkObject(name, bytes);
    checkVersion(version);
    return (await this.#upload(name, bytes, version, signal)) ? 'replaced' : 'changed';
  }

  async *list(signal?: AbortSignal): AsyncIterable<string> {
    let token: string | undefined;
    do {
      const { names, next } = await this.#page(PAGE, token, signal);
      for (const full of names) {
        const name = full.slice(this.#prefix.length);
        if (full.startsWith(this.#prefix) && OBJECT_NAME.test(name)) yield name;
      }
      if (next !== undefined && next === token)
        throw new KmsError('ERR_STORE_ANSWER', `${this.#rest.host} gives the same page again and again`);
      token = next;
    } while (token !== undefined);
  }

  async remove(name: string, version: string, signal?: AbortSignal): Promise<'removed' | 'changed'> {
    checkObject(name);
    checkVersion(version);
    const answer = await this.#rest.call(
      {
        method: 'DELETE',
        path: `${this.#object(name)}?ifGenerationMatch=${version}`,
        maxBytes: MAX_ANSWER_BYTES,
      },
      signal,
    );
    if (answer.status === 412) return 'changed';
    if (answer.status === 404) await this.#checkBucket(signal);
    else if (answer.status !== 204 && answer.status !== 200) throw this.#nonsense(answer);
    return 'removed';
  }

  async close(): Promise<void> {
    this.#rest.close();
  }

  /**
   * A try whose answer was lost may have written, and the next one then meets its own object: who made it reads it
   * like anybody else.
   *
   * @returns false: the object has another generation
   */
  async #upload(
    name: string,
    bytes: Uint8Array,
    generation: string,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const query = new URLSearchParams({
      uploadType: 'media',
      name: this.#prefix + name,
      ifGenerationMatch: generation,
      fields: 'generation',
    });
    const answer = await this.#rest.call(
      {
        method: 'POST',
        path: `/upload/storage/v1/b/${this.#bucket}/o?${query}`,
        headers: { 'content-type': 'application/octet-stream' },
        body: bytes,
        maxBytes: MAX_ANSWER_BYTES,
      },
      signal,
    );
    if (answer.status === 200) return true;
    if (answer.status === 412) return false;
    if (answer.status === 404) await this.#checkBucket(signal);
    if (answer.status === 404 && generation !== '0') return false;
    throw this.#nonsense(answer);
  }

  /** That an object is not there, and that its bucket is not, is the same answer. */
  async #checkBucket(signal: AbortSignal | undefined): Promise<void> {
    await this.#page(1, undefined, signal);
  }

  async #page(size: number, token: string | undefined, signal: AbortSignal | undefined): Promise<ListPage> {
    const query = new URLSearchParams({
      // Others may keep their objects behind slashes: those are not paged through.
      delimiter: '/',
      fields: 'items(name),nextPageToken',
      maxResults: String(size),
      prefix: this.#prefix,
      ...(token !== undefined && { pageToken: token }),
    });
    const answer = await this.#rest.call(
      { method: 'GET', path: `/storage/v1/b/${this.#bucket}/o?${query}`, maxBytes: MAX_PAGE_BYTES },
      signal,
    );
    if (answer.status === 404)
      throw new KmsError(
        'ERR_STORE_NOT_FOUND',
        `${this.#rest.host} has no bucket ${this.#bucket}; create it, or correct the settings`,
      );
    if (answer.status !== 200) throw this.#nonsense(answer);
    try {
      return parseListPage(answer.bytes);
    } catch (cause) {
      if (!(cause instanceof ParseError)) throw cause;
      throw this.#nonsense(answer, 'with something else than a list', cause);
    }
  }

  #object(name: string): string {
    return `/storage/v1/b/${this.#bucket}/o/${encodeURIComponent(this.#prefix + name)}`;
  }

  #nonsense(answer: HttpAnswer, what = 'which is no answer of Cloud Storage', cause?: unknown): KmsError {
    return new KmsError('ERR_STORE_ANSWER', `${this.#rest.host} answers ${statusOf(answer)}, ${what}`, {
      cause,
    });
  }
}

function checkVersion(version: string): void {
  if (!GENERATION.test(version))
    throw new KmsError('ERR_STORE_SETTINGS', 'the version of a stored key is no generation');
}
