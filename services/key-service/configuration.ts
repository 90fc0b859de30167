import { AsterismError } from '@asterism/errors/errors';
import {
  KEY_CONFIGURATION,
  type KeyConfiguration,
  keyConfigurationIn,
} from '@asterism/kms/key-configuration';
import type { DataObject, KubernetesApi } from '@asterism/kubernetes/api';
import { follow } from './follow.ts';

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
export function followKeyConfiguration(options: WatchOptions): Promise<void> {
  const { api, apply, log, signal } = options;
  const trouble = 'the key configuration cannot be used; what was in force stays';
  let applied: string | undefined;
  const look = async () => {
    const { metadata, data } = await api.call<DataObject>('GET', PATH, undefined, signal);
    const version = metadata?.resourceVersion;
    if (version === undefined)
      throw new AsterismError('ERR_KEY_CONFIGURATION', `the Secret ${KEY_CONFIGURATION.name} has no version`);
    if (version === applied) return;
    await apply(keyConfigurationIn(data), version);
    applied = version;
    log.info({ version }, 'the key configuration is in force');
  };
  return follow(look, { intervalMs: INTERVAL_MS, ...options, trouble });
}
