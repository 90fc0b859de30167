import { equal, zero } from '@asterism/bytes/bytes';
import { DEK_PREFIX } from '@asterism/crypto/derive';
import { AsterismError, VerificationError } from '@asterism/errors/errors';
import { type Envelope, openDek, parseEnvelope, renderEnvelope, sealDek } from './envelope.ts';
import { KmsError, KmsUnavailableError } from './errors.ts';
import type { Kek } from './kek.ts';
import { Retries, type RetryPolicy, withRetry } from './retry.ts';
import type { DekStore } from './store.ts';

const CONCURRENCY = 16;
/** Of one key. A KMS that throttles is waited for; one that is gone ends the run. */
const RETRY: RetryPolicy = { tries: Number.POSITIVE_INFINITY, deadlineMs: 120_000 };
const MAX_CHANGES = 10;
const MAX_FAILURES = 100;

/** Failures that no other key would fare better with. */
const OF_THE_HOME = new Set([
  'ERR_KMS_CREDENTIALS',
  'ERR_KMS_DENIED',
  'ERR_KMS_KEY_NOT_FOUND',
  'ERR_KMS_KEY_DISABLED',
  'ERR_STORE_CREDENTIALS',
  'ERR_STORE_DENIED',
  'ERR_STORE_NOT_FOUND',
]);

export interface KekGeneration {
  readonly kek: Kek;
  readonly generation: number;
}

export interface RewrapResult {
  /** Keys that were looked at. */
  readonly total: number;
  readonly rewrapped: number;
  /** They were wrapped by the target already, and it unwraps them. */
  readonly alreadyDone: number;
  /** They are as they were. */
  readonly failedCount: number;
  /** The first 100 of them. */
  readonly failed: readonly { readonly id: string; readonly error: AsterismError }[];
  /** Objects whose names are not those of keys. They are left alone. */
  readonly foreign: number;
}

export interface RewrapOptions {
  readonly from: KekGeneration;
  /** A later generation, or the same one where the home has a newer version of its key. */
  readonly to: KekGeneration;
  readonly store: DekStore;
  /** 64 hexadecimal digits in lower case. */
  readonly clusterId: string;
  /** What v2.6 wrapped, by `from`, is wrapped anew and bound. */
  readonly acceptV26Blobs?: boolean | undefined;
  /** Default 16. */
  readonly concurrency?: number | undefined;
  /** Of one key. Default: as often as it takes, within 2 minutes. */
  readonly retry?: Partial<RetryPolicy> | undefined;
  /** After each key. */
  readonly onProgress?: ((result: RewrapResult) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Wraps every key of a store by the target. A key is written over only after what takes its place was unwrapped and
 * found to be the same key. Ended at any point it can be run again: what is done is proved and left. The old KEK may go
 * when a run that began after everybody wraps by the target reports no failure and nothing rewrapped.
 *
 * Memory does not grow with the number of keys.
 *
 * @throws KmsUnavailableError the KMS or the store stays away; KmsError it refuses whatever key it is
 * @throws the signal's reason
 */
export async function rewrapAll(options: RewrapOptions): Promise<RewrapResult> {
  const { from, to, store, concurrency = CONCURRENCY, onProgress, signal } = options;
  if (to.generation < from.generation)
    throw new KmsError(
      'ERR_KMS_SETTINGS',
      'keys are re-wrapped to a later generation, not to an earlier one',
    );
  const counts = { total: 0, rewrapped: 0, alreadyDone: 0, failedCount: 0, foreign: 0 };
  const failed: { id: string; error: AsterismError }[] = [];
  const stop = new AbortController();
  const until = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
  const retry = { ...RETRY, ...options.retry };
  const { keyId } = await withRetry((signal) => to.kek.status(signal), retry, until);

  const rewrap = async (id: string): Promise<void> => {
    if (!id.startsWith(DEK_PREFIX)) {
      counts.foreign++;
      return;
    }
    try {
      using retries = new Retries(retry, until);
      const outcome = await rewrapOne(options, id, keyId, retries);
      if (outcome === 'gone') return;
      counts[outcome]++;
    } catch (error) {
      const known = error instanceof AsterismError && !until.aborted;
      if (!known || error instanceof KmsUnavailableError || OF_THE_HOME.has(error.code)) throw error;
      counts.failedCount++;
      if (failed.length < MAX_FAILURES) failed.push({ id, error });
    }
    counts.total++;
    onProgress?.({ ...counts, failed });
  };

  // A generator gives each of those who ask at the same time another id.
  const ids = (async function* () {
    yield* store.list(until);
  })();
  const worker = async () => {
    try {
      for (;;) {
        until.throwIfAborted();
        const { value, done } = await ids.next();
        if (done) return;
        await rewrap(value);
      }
    } catch (error) {
      stop.abort(error);
      throw error;
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: concurrency }, worker));
  signal?.throwIfAborted();
  if (stop.signal.aborted) throw stop.signal.reason;
  for (const one of ended) if (one.status === 'rejected') throw one.reason;
  return { ...counts, failed };
}

async function rewrapOne(
  options: RewrapOptions,
  id: string,
  keyId: string,
  retries: Retries,
): Promise<'rewrapped' | 'alreadyDone' | 'gone'> {
  const { from, to, store, clusterId } = options;
  const target = { dekId: id, clusterId, generation: to.generation };
  for (let change = 0; change < MAX_CHANGES; change++) {
    const found = await retries.run((signal) => store.get(id, signal));
    if (found === undefined) return 'gone';
    const envelope = parseEnvelope(found.bytes);
    const source = opensByTarget(options, id, envelope) ? to : from;
    const binding = { ...target, generation: source.generation };
    const dek = await retries.run((signal) => openDek(source.kek, envelope, binding, signal));
    try {
      if (source === to && envelope.wrapped.keyId === keyId) return 'alreadyDone';
      const next = renderEnvelope(await retries.run((signal) => sealDek(to.kek, target, dek, signal)));
      // Proved before it takes the place of what is known to be good.
      const proven = await retries.run((signal) => openDek(to.kek, parseEnvelope(next), target, signal));
      const same = equal(proven, dek);
      zero(proven);
      if (!same) throw otherKey(id);
      const outcome = await retries.run((signal) => store.replace(id, next, found.version, signal));
      if (outcome === 'changed') continue;
      const written = await retries.run((signal) => store.get(id, signal));
      if (written !== undefined && equal(written.bytes, next)) return 'rewrapped';
    } finally {
      zero(dek);
    }
  }
  throw new KmsUnavailableError(
    'ERR_STORE_STALE',
    `the store does not return the key ${id} as it was written, or others keep writing it: try again later`,
  );
}

function opensByTarget(
  { to, acceptV26Blobs = false }: RewrapOptions,
  id: string,
  { binding }: Envelope,
): boolean {
  if (binding === undefined && !acceptV26Blobs)
    throw new VerificationError(
      'ERR_ENVELOPE_V26',
      `the wrapped key for ${id} is bound to no id and no cluster, as v2.6 wrote them: accept such keys, or remove it`,
    );
  return binding?.generation === to.generation;
}

function otherKey(id: string): KmsError {
  return new KmsError(
    'ERR_KMS_ANSWER',
    `the KMS unwrapped another key than it wrapped for ${id}: nothing was written`,
  );
}
