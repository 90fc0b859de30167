import { setTimeout as sleep } from 'node:timers/promises';
import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import {
  type HomeConfiguration,
  KEY_CONFIGURATION,
  KEY_GENERATION_METRIC,
  keyConfigurationIn,
  keySecretData,
} from '@asterism/kms/key-configuration';
import {
  type DataObject,
  KubernetesApiError,
  type KubernetesObject,
  replaceUnchanged,
} from '@asterism/kubernetes/api';
import type { AdminApi } from './admin-api.ts';

const SYSTEM = '/api/v1/namespaces/kube-system';
const PATH = `${SYSTEM}/secrets/${KEY_CONFIGURATION.name}`;
const PODS = `${SYSTEM}/pods?labelSelector=app%3Dkey-service`;
const DAEMON_SET = '/apis/apps/v1/namespaces/kube-system/daemonsets/key-service';
const HEALTH_PORT = 9101;

/** The cluster's key configuration, as it was read. */
export interface ReadConfiguration {
  readonly homes: readonly HomeConfiguration[];
  /** For {@link writeHomes}: nobody else's change is written over. */
  readonly object: KubernetesObject;
}

/** @throws AsterismError ERR_KEY_CONFIGURATION */
export async function readHomes(api: AdminApi, signal: AbortSignal): Promise<ReadConfiguration> {
  const object = await api.call<DataObject>('GET', PATH, undefined, signal);
  return { homes: keyConfigurationIn(object.data).homes, object };
}

/** @returns the version of the new configuration */
export async function writeHomes(
  api: AdminApi,
  read: ReadConfiguration,
  homes: readonly HomeConfiguration[],
  signal: AbortSignal,
): Promise<string> {
  const changed = { ...read.object, data: keySecretData({ homes }) };
  const written = await replaceUnchanged(api, PATH, changed, signal);
  if (written !== undefined) return versionOf(written);
  throw new AsterismError(
    'ERR_KEY_CONFIGURATION',
    'somebody else has just changed the key configuration; run this again',
  );
}

export const versionOf = ({ metadata }: KubernetesObject): string => metadata?.resourceVersion ?? '';

/**
 * Waits until every replica of the KeyService goes by a version of the configuration.
 * @throws UnreachableError when time is up
 */
export async function untilInForce(
  api: AdminApi,
  version: string,
  { timeoutMs, signal, onState }: { timeoutMs: number; signal: AbortSignal; onState: (text: string) => void },
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const { behind, total } = await replicasBehind(api, version, signal);
    if (total > 0 && behind.length === 0) return;
    onState(`${total - behind.length} of ${total} KeyServices have the new configuration`);
    if (performance.now() > deadline) {
      throw new UnreachableError(
        `after ${Math.round(timeoutMs / 1000)} s not every KeyService goes by the new configuration: ${behind.join(', ')}. ` +
          'See why with: kubectl -n kube-system logs -l app=key-service; then run this again',
        { code: 'ERR_KEY_SERVICES_BEHIND' },
      );
    }
    await sleep(1000, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

interface PodList extends KubernetesObject {
  readonly items?: readonly {
    readonly metadata?: { readonly name?: string; readonly deletionTimestamp?: string };
    readonly status?: { readonly phase?: string };
  }[];
}

interface DaemonSet extends KubernetesObject {
  readonly status?: { readonly desiredNumberScheduled?: number };
}

async function replicasBehind(api: AdminApi, version: string, signal: AbortSignal) {
  const wanted =
    (await api.call<DaemonSet>('GET', DAEMON_SET, undefined, signal)).status?.desiredNumberScheduled ?? 0;
  const { items = [] } = await api.call<PodList>('GET', PODS, undefined, signal);
  const names = items.flatMap(({ metadata, status }) =>
    metadata?.deletionTimestamp === undefined && status?.phase === 'Running' ? [metadata?.name ?? ''] : [],
  );
  const behind: string[] = [];
  for (const name of names) if (!(await goesBy(api, name, version, signal))) behind.push(name);
  for (let missing = names.length; missing < wanted; missing++) behind.push('one that does not run');
  return { behind, total: Math.max(wanted, names.length) };
}

async function goesBy(api: AdminApi, pod: string, version: string, signal: AbortSignal): Promise<boolean> {
  try {
    const metrics = await api.text(`${SYSTEM}/pods/${pod}:${HEALTH_PORT}/proxy/metrics`, signal);
    return metrics.includes(`${KEY_GENERATION_METRIC}{version="${version}"}`);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof KubernetesApiError || error instanceof UnreachableError) return false;
    throw error;
  }
}
