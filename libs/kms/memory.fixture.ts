import { createCipheriv, createDecipheriv, hash, randomBytes } from 'node:crypto';
import { checkEnvelopeKey, checkObject } from './checks.ts';
import { KmsError } from './errors.ts';
import type { Kek, WrappedKey } from './kek.ts';
import type { DekStore, StoredObject } from './store.ts';

/** A KEK in this process, for unit tests: AES-256-GCM with the context as associated data. */
export class MemoryKek implements Kek {
  readonly #key: Uint8Array;
  readonly #keyId: string;
  calls = 0;
  closed = false;
  /** Called before each wrap and unwrap. */
  before: (what: 'wrap' | 'unwrap', signal: AbortSignal | undefined) => Promise<void> = async () => {};

  constructor(keyId: string, key: Uint8Array = randomBytes(32)) {
    this.#keyId = keyId;
    this.#key = key;
  }

  async wrap(key: Uint8Array, context: string, signal?: AbortSignal): Promise<WrappedKey> {
    checkEnvelopeKey(key);
    signal?.throwIfAborted();
    this.calls++;
    await this.before('wrap', signal);
    const iv = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', this.#key, iv).setAAD(Buffer.from(context));
    const wrappedKey = Buffer.concat([iv, cipher.update(key), cipher.final(), cipher.getAuthTag()]);
    return { mechanism: 1, keyId: this.#keyId, wrappedKey };
  }

  async unwrap(
    { wrappedKey }: WrappedKey,
    context: string | undefined,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    signal?.throwIfAborted();
    this.calls++;
    await this.before('unwrap', signal);
    try {
      const decipher = createDecipheriv('aes-256-gcm', this.#key, wrappedKey.subarray(0, 12));
      if (context !== undefined) decipher.setAAD(Buffer.from(context));
      decipher.setAuthTag(wrappedKey.subarray(-16));
      const key = Buffer.concat([decipher.update(wrappedKey.subarray(12, -16)), decipher.final()]);
      return new Uint8Array(key);
    } catch (cause) {
      throw new KmsError('ERR_KMS_UNWRAP', 'the KEK refuses these bytes', { cause });
    }
  }

  /** As v2.6 wrapped: without a context. */
  wrapV26(key: Uint8Array): WrappedKey {
    const iv = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', this.#key, iv);
    const wrappedKey = Buffer.concat([iv, cipher.update(key), cipher.final(), cipher.getAuthTag()]);
    return { mechanism: 1, keyId: this.#keyId, wrappedKey };
  }

  async status() {
    return { keyId: this.#keyId, enabled: true, detail: 'memory' };
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

/** A store in this process, for unit tests. */
export class MemoryStore implements DekStore {
  readonly objects = new Map<string, Uint8Array>();
  closed = false;
  /** Called before each exchange. */
  before: (what: 'get' | 'create' | 'replace' | 'list' | 'remove', name: string) => Promise<void> =
    async () => {};

  async get(name: string, signal?: AbortSignal): Promise<StoredObject | undefined> {
    checkObject(name);
    signal?.throwIfAborted();
    await this.before('get', name);
    const bytes = this.objects.get(name);
    return bytes && { bytes: Uint8Array.from(bytes), version: hash('sha256', bytes, 'hex') };
  }

  async create(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<'created' | 'exists'> {
    checkObject(name, bytes);
    signal?.throwIfAborted();
    await this.before('create', name);
    if (this.objects.has(name)) return 'exists';
    this.objects.set(name, Uint8Array.from(bytes));
    return 'created';
  }

  async replace(name: string, bytes: Uint8Array, version: string): Promise<'replaced' | 'changed'> {
    checkObject(name, bytes);
    await this.before('replace', name);
    if (this.#version(name) !== version) return 'changed';
    this.objects.set(name, Uint8Array.from(bytes));
    return 'replaced';
  }

  async *list(): AsyncIterable<string> {
    await this.before('list', '');
    yield* [...this.objects.keys()];
  }

  async remove(name: string, version: string): Promise<'removed' | 'changed'> {
    await this.before('remove', name);
    if (this.objects.has(name) && this.#version(name) !== version) return 'changed';
    this.objects.delete(name);
    return 'removed';
  }

  #version(name: string): string | undefined {
    const bytes = this.objects.get(name);
    return bytes && hash('sha256', bytes, 'hex');
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}
