import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { AsterismError } from '@asterism/errors/errors';
import type { RewrapResult } from '@asterism/kms/rewrap';
import {
  parseRotationStatus,
  ROTATION_STATUS,
  type RotationStatus,
  renderRotationStatus,
} from '@asterism/kms/rotation-status';
import { type DataObject, getIfThere, type KubernetesApi, replaceUnchanged } from '@asterism/kubernetes/api';
import type { AuditLog } from '@asterism/runtime/audit-log';
import { follow } from './follow.ts';

const PATH = `/api/v1/namespaces/kube-system/configmaps/${ROTATION_STATUS}`;
const INTERVAL_MS = 3000;
/** A replica that has not reported for so long is taken for dead; another goes on. */
const LEASE_MS = 30_000;

/** Re-wraps every stored key. */
export type Rewrap = (
  onProgress: (result: RewrapResult) => void,
  signal: AbortSignal,
) => Promise<RewrapResult>;

export interface RotationOptions {
  readonly api: KubernetesApi;
  /** What re-wraps every stored key; undefined while no rotation is configured, or one to another generation. */
  readonly rewrap: (generation: number) => Rewrap | undefined;
  readonly audit: Pick<AuditLog, 'append'>;
  readonly log: {
    info(fields: object, message: string): void;
    error(fields: object, message: string): void;
  };
  readonly signal: AbortSignal;
  /** Name of this replica. Default: the host's. */
  readonly name?: string;
  /** Default {@link INTERVAL_MS}. */
  readonly intervalMs?: number;
}

/**
 * Carries out orders to re-wrap the cluster's stored keys, one replica at a time. A replica that dies is succeeded: what
 * it has done is found done. (Two at once would do no harm: each key is replaced by its version.)
 */
export function followRotation(options: RotationOptions): Promise<void> {
  const trouble = 'the rotation of keys does not go on; it is tried again';
  return follow(() => round(options), { intervalMs: INTERVAL_MS, ...options, trouble });
}

async function round(options: RotationOptions): Promise<void> {
  const { audit, log, signal } = options;
  const status = await Status.read(options.api, signal);
  if (status === undefined || !isFree(status.value)) return;
  const rewrap = options.rewrap(status.value.generation);
  if (rewrap === undefined) return;
  const holder = options.name ?? hostname();
  const taken = await status.write({ state: 'running', holder, renewed: now(), error: '' }, signal);
  if (!taken) return;
  log.info({ generation: status.value.generation }, 're-wrapping the stored keys');
  let report: Partial<RotationStatus> = {};
  let broken: unknown;
  const stop = new AbortController();
  const until = AbortSignal.any([signal, stop.signal]);
  const renewing = (async () => {
    while (!until.aborted) {
      await sleep(options.intervalMs ?? INTERVAL_MS, undefined, { signal: until }).catch(() => {});
      if (until.aborted) return;
      // Never cut off: it might be written all the same, and what is written next would look like somebody else's change.
      if (!(await status.write({ ...report, renewed: now() }, signal))) throw overtaken();
    }
  })().catch((error: unknown) => {
    broken = error;
    stop.abort(error);
  });
  let final: Partial<RotationStatus>;
  try {
    const result = await rewrap((so) => {
      report = countsOf(so);
    }, until);
    const [first] = result.failed;
    final = {
      ...countsOf(result),
      state: result.failed.length === 0 ? 'done' : 'failed',
      error: first === undefined ? '' : `${first.id}: ${first.error.message}`,
    };
  } catch (error) {
    signal.throwIfAborted();
    if (broken !== undefined) throw broken;
    final = { ...report, state: 'failed', error: error instanceof Error ? error.message : String(error) };
  } finally {
    stop.abort();
    await renewing;
  }
  const { generation, order } = status.value;
  await audit.append({
    event: 'rewrap-keys',
    outcome: final.state === 'done' ? 'granted' : 'refused',
    order,
    generation,
    total: final.total ?? 0,
    rewrapped: final.rewrapped ?? 0,
    failed: final.failed ?? 0,
    ...(final.error ? { reason: final.error.slice(0, 512) } : {}),
  });
  if (!(await status.write({ ...final, renewed: now() }, signal))) throw overtaken();
  log.info({ ...final, generation }, 'the stored keys were re-wrapped');
}

function overtaken(): AsterismError {
  return new AsterismError('ERR_ROTATION_TAKEN', 'the order was changed while it was carried out');
}

function isFree({ state, renewed }: RotationStatus): boolean {
  if (state === 'ordered') return true;
  // A time that is far ahead is of a machine whose clock is wrong: nobody waits until then.
  return state === 'running' && !(Math.abs(Date.now() - Date.parse(renewed)) < LEASE_MS);
}

function countsOf({ total, rewrapped, alreadyDone, failedCount }: RewrapResult): Partial<RotationStatus> {
  return { total, rewrapped, alreadyDone, failed: failedCount };
}

const now = (): string => new Date().toISOString();

/** The ConfigMap, changed only while nobody else changes it. */
class Status {
  readonly #api: KubernetesApi;
  #object: DataObject;
  value: RotationStatus;

  private constructor(api: KubernetesApi, object: DataObject) {
    this.#api = api;
    this.#object = object;
    this.value = parseRotationStatus(object.data);
  }

  static async read(api: KubernetesApi, signal: AbortSignal): Promise<Status | undefined> {
    const object = await getIfThere<DataObject>(api, PATH, signal);
    return object && new Status(api, object);
  }

  /** @returns false where somebody else has written */
  async write(change: Partial<RotationStatus>, signal: AbortSignal): Promise<boolean> {
    const value = { ...this.value, ...change };
    const changed = { ...this.#object, data: renderRotationStatus(value) };
    const written = await replaceUnchanged<DataObject>(this.#api, PATH, changed, signal);
    if (written === undefined) return false;
    this.#object = written;
    this.value = value;
    return true;
  }
}
