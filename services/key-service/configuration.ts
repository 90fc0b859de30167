import { setTimeout as sleep } from 'node:timers/promises';
import { fromBase64, fromUtf8 } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import {
  KEY_CONFIGURATION,
  type KeyConfiguration,
  parseKeyConfiguration,
} from '@asterism/kms/key-configuration';
import type { KubernetesApi, KubernetesObject } from '@asterism/kubernetes/api';

const PATH = `/api/v1/namespaces/kube-system/secrets/${KEY_CONFIGURATION.name}`;
/** How long the replicas of a cluster may disagree about its generations, beside the time of one call. */
const INTERVAL_MS = 2000;

export interface WatchOptions {
  readonly api: KubernetesApi;
  /** @param version of the Secret, as the API server counts */
  readonly apply: (configuration: KeyConfiguration, version: string) => Promise<void>;
  readonly log: {
    info(fields: object, message: string): void;
    error(fields: object, message: string): void;
  };
  readonly signal: AbortSignal;
  /** Default {@link INTERVAL_MS}. */
  readonly intervalMs?: number;
}

/**
 * Follows the key configuration of the cluster, which is read from the API server: a mounted Secret would come a minute
 * later. A configuration that cannot be used changes nothing and is tried again.
 */
export async function followKeyConfiguration(options: WatchOptions): Promise<void> {
  const { api, apply, log, signal, intervalMs = INTERVAL_MS } = options;
  let applied: string | undefined;
  let said: string | undefined;
  while (!signal.aborted) {
    try {
      const { version, configuration } = await readKeyConfiguration(api, signal);
      if (version !== applied) {
        await apply(configuration(), version);
        applied = version;
        log.info({ version }, 'the key configuration is in force');
      }
      said = undefined;
    } catch (err) {
      if (signal.aborted) return;
      // The same trouble every two seconds is one line.
      const what = err instanceof Error ? err.message : String(err);
      if (what !== said) log.error({ err }, 'the key configuration cannot be used; what was in force stays');
      said = what;
    }
    await sleep(intervalMs, undefined, { signal }).catch(() => {});
  }
}

interface Secret extends KubernetesObject {
  readonly data?: Readonly<Record<string, string>>;
}

async function readKeyConfiguration(api: KubernetesApi, signal: AbortSignal) {
  const { metadata, data } = await api.call<Secret>('GET', PATH, undefined, signal);
  const content = data?.[KEY_CONFIGURATION.entry];
  const version = metadata?.resourceVersion;
  if (content === undefined || version === undefined)
    throw new AsterismError(
      'ERR_KEY_CONFIGURATION',
      `the Secret ${KEY_CONFIGURATION.name} holds no configuration`,
    );
  return { version, configuration: () => parseKeyConfiguration(fromUtf8(fromBase64(content))) };
}
