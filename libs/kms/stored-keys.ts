import { randomFillSync } from 'node:crypto';
import { equal, zero } from '@asterism/bytes/bytes';
import { AsterismError, VerificationError } from '@asterism/errors/errors';
import { type CacheLimits, DekCache, type OpenedDek } from './dek-cache.ts';
import {
  type Binding,
  checkBinding,
  type Envelope,
  MAX_DEK_BYTES,
  openDek,
  parseEnvelope,
  renderEnvelope,
  sealDek,
} from './envelope.ts';
import { KmsError, KmsUnavailableError } from './errors.ts';
import type { Kek, KekStatus } from './kek.ts';
import { Retries, type RetryPolicy } from './retry.ts';
import type { DekStore } from './store.ts';
import type { KeyHome, KeyObserver } from './types.ts';

const CACHE: CacheLimits = { lifeMs: 600_000, entries: 10_000 };
const RETRY: RetryPolicy = { tries: 3, deadlineMs: 20_000 };
const SILENT: KeyObserver = { onExchange: () => {}, onCache: () => {} };

export interface StoredKeysOptions {
  /** Wraps new keys. It and the store are closed with the home. */
  readonly kek: Kek;
  readonly store: DekStore;
  /** 64 hexadecimal digits in lower case. */
  readonly clusterId: string;
  /** Of the KEK. */
  readonly generation: number;
  /** While a rotation is under way: what the keys that are not re-wrapped yet are read with. */
  readonly previous?: { readonly kek: Kek; readonly generation: number } | undefined;
  readonly acceptV26Blobs?: boolean | undefined;
  /** Default: 10 minutes, 10,000 keys. */
  readonly cache?: Partial<CacheLimits> | undefined;
  /** Of one key. Default: 3 tries in 20 seconds. */
  readonly retry?: Partial<RetryPolicy> | undefined;
  readonly observer?: KeyObserver | undefined;
}

/**
 * DEKs that lie wrapped in a store. One that is asked for the first time is made at random and created on condition
 * that there is none, so that all who ask get the same; none is given out before it was read back and unwrapped.
 *
 * Errors of getDek: KmsUnavailableError where asking again helps (ERR_STORE_STALE among them), VerificationError where
 * the store gives what is not the key of that id, ParseError ERR_ENVELOPE, KmsError.
 */
export function storedKeys(options: StoredKeysOptions): KeyHome {
  return new StoredKeys(options);
}

/** One fetching of a key, for all who want it at that time. */
interface Flight {
  readonly opened: Promise<OpenedDek>;
  /** The same, once it is there. Zeroed when nobody waits any more. */
  landed: OpenedDek | undefined;
  waiting: number;
}

class StoredKeys implements KeyHome {
  readonly kind = 'external';
  readonly generation: number;
  readonly #options: StoredKeysOptions;
  readonly #observer: KeyObserver;
  readonly #retry: RetryPolicy;
  readonly #cache: DekCache;
  readonly #flights = new Map<string, Flight>();
  readonly #stop = new AbortController();

  constructor(options: StoredKeysOptions) {
    this.generation = options.generation;
    this.#options = options;
    this.#observer = options.observer ?? SILENT;
    this.#retry = { ...RETRY, ...options.retry };
    this.#cache = new DekCache({ ...CACHE, ...options.cache });
  }

  async getDek(id: string, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    checkLength(length);
    signal?.throwIfAborted();
    this.#stop.signal.throwIfAborted();
    const cached = this.#cache.get(id)?.dek;
    this.#observer.onCache(cached !== undefined);
    const dek = cached === undefined ? await this.#shared(id, length, signal) : new Uint8Array(cached);
    if (dek.length === length) return dek;
    zero(dek);
    throw new KmsError('ERR_DEK_LENGTH', `the key ${id} has ${dek.length} bytes, not the ${length} wanted`);
  }

  /** @returns a copy */
  async #shared(id: string, length: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const flight = this.#flights.get(id) ?? this.#depart(id, length);
    flight.waiting++;
    try {
      return new Uint8Array((await orAborted(flight.opened, signal)).dek);
    } finally {
      flight.waiting--;
      if (flight.waiting === 0 && flight.landed !== undefined) zero(flight.landed.dek);
    }
  }

  #depart(id: string, length: number): Flight {
    const opened = this.#find(id, () => randomFillSync(new Uint8Array(length)), this.#stop.signal);
    const flight: Flight = { opened, landed: undefined, waiting: 0 };
    this.#flights.set(id, flight);
    opened.then(
      (landed) => {
        flight.landed = landed;
        this.#flights.delete(id);
        if (!this.#stop.signal.aborted) this.#cache.set(id, { ...landed, dek: new Uint8Array(landed.dek) });
        if (flight.waiting === 0) zero(landed.dek);
      },
      () => this.#flights.delete(id),
    );
    return flight;
  }

  async importDek(id: string, dek: Uint8Array, signal?: AbortSignal): Promise<void> {
    checkLength(dek.length);
    const either = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal]);
    const found = await this.#find(id, () => new Uint8Array(dek), either);
    const same = equal(found.dek, dek);
    zero(found.dek);
    if (!same)
      throw new KmsError('ERR_DEK_EXISTS', `the store has another key of the id ${id}: it stays as it is`);
  }

  /** The stored key of that id; where there is none, it is made. */
  async #find(id: string, make: () => Uint8Array, signal: AbortSignal): Promise<OpenedDek> {
    using retries = new Retries(this.#retry, signal);
    return (await this.#read(id, retries)) ?? (await this.#create(id, make(), retries));
  }

  /** @param dek is zeroed */
  async #create(id: string, dek: Uint8Array, retries: Retries): Promise<OpenedDek> {
    const { kek, store } = this.#options;
    try {
      const envelope = await retries.run((signal) =>
        this.#timed('kms', () => sealDek(kek, this.#binding(id), dek, signal)),
      );
      const bytes = renderEnvelope(envelope);
      const outcome = await retries.run((signal) =>
        this.#timed('store', () => store.create(id, bytes, signal)),
      );
      return await retries.run(async () => {
        const proven = await this.#read(id, retries);
        if (proven !== undefined && (outcome === 'exists' || equal(proven.dek, dek))) return proven;
        if (proven !== undefined) zero(proven.dek);
        throw stale(id);
      });
    } finally {
      zero(dek);
    }
  }

  async #read(id: string, retries: Retries): Promise<OpenedDek | undefined> {
    const found = await this.#stored(id, retries);
    if (found === undefined) return undefined;
    const envelope = parseEnvelope(found);
    const { kek, binding } = this.#judge(id, envelope);
    const dek = await retries.run((signal) =>
      this.#timed('kms', () => openDek(kek, envelope, binding, signal)),
    );
    return { dek, envelope: found };
  }

  async #stored(id: string, retries: Retries): Promise<Uint8Array | undefined> {
    const found = await retries.run((signal) =>
      this.#timed('store', () => this.#options.store.get(id, signal)),
    );
    return found?.bytes;
  }

  /** What an envelope must be, and the KEK that opens it. */
  #judge(id: string, { binding }: Envelope): { kek: Kek; binding: Binding } {
    const { kek, previous, acceptV26Blobs = false } = this.#options;
    if (binding === undefined && !acceptV26Blobs)
      throw new VerificationError(
        'ERR_ENVELOPE_V26',
        `the wrapped key for ${id} is bound to no id and no cluster, as v2.6 wrote them: ` +
          'v26Blobs=accept in the KMS URI accepts such keys',
      );
    // What v2.6 wrote is as old as a key can be.
    const old =
      previous !== undefined && (binding?.generation ?? previous.generation) === previous.generation;
    const wanted = this.#binding(id, old ? previous.generation : this.generation);
    if (binding !== undefined) checkBinding(binding, wanted);
    return { kek: old ? previous.kek : kek, binding: wanted };
  }

  #binding(dekId: string, generation = this.generation): Binding {
    return { dekId, clusterId: this.#options.clusterId, generation };
  }

  async wrapped(id: string, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    this.#stop.signal.throwIfAborted();
    const cached = this.#cache.get(id);
    if (cached !== undefined) return new Uint8Array(cached.envelope);
    using retries = new Retries(this.#retry, signal);
    const found = await this.#stored(id, retries);
    if (found !== undefined) this.#judge(id, parseEnvelope(found));
    return found;
  }

  status(signal?: AbortSignal): Promise<KekStatus> {
    return this.#timed('kms', () => this.#options.kek.status(signal));
  }

  async close(): Promise<void> {
    this.#stop.abort(new AsterismError('ERR_KMS_CLOSED', 'the key home is closed'));
    this.#cache.clear();
    const { kek, previous, store } = this.#options;
    await Promise.all([kek.close(), previous?.kek.close(), store.close()]);
  }

  async #timed<T>(what: 'kms' | 'store', work: () => Promise<T>): Promise<T> {
    const started = performance.now();
    const ended = (outcome: 'ok' | 'failed', code?: string) =>
      this.#observer.onExchange(what, outcome, performance.now() - started, code);
    try {
      const result = await work();
      ended('ok');
      return result;
    } catch (error) {
      ended('failed', error instanceof AsterismError ? error.code : 'unexpected');
      throw error;
    }
  }
}

function stale(id: string): KmsUnavailableError {
  return new KmsUnavailableError(
    'ERR_STORE_STALE',
    `the store does not return the key ${id} as it was written: it is behind, or lost it; try again later`,
  );
}

function checkLength(length: number): void {
  if (!Number.isInteger(length) || length < 1 || length > MAX_DEK_BYTES)
    throw new KmsError('ERR_DEK_LENGTH', `a stored key has 1 to ${MAX_DEK_BYTES} bytes, not ${length}`);
}

/** What others wait for goes on when one of them is gone. */
async function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}
