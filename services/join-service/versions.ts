import { AsterismError } from '@asterism/errors/errors';
import type { KubernetesApi, KubernetesObject } from '@asterism/kubernetes/api';
import { z } from 'zod';

const CONFIG_MAPS = '/api/v1/namespaces/kube-system/configmaps';
const components = z
  .array(
    z.object({
      URL: z.string(),
      Hash: z.string().regex(/^sha256:[0-9a-f]{64}$/),
      InstallPath: z.string(),
      Extract: z.boolean(),
    }),
  )
  .max(64);

/** What a node that joins has to run. */
export interface ClusterVersion {
  readonly kubernetesVersion: string;
  readonly components: readonly {
    readonly url: string;
    readonly hash: string;
    readonly installPath: string;
    readonly extract: boolean;
  }[];
}

/** @throws AsterismError ERR_CLUSTER_VERSION the objects that init wrote cannot be read */
export async function clusterVersion(api: KubernetesApi, signal: AbortSignal): Promise<ClusterVersion> {
  const read = async (name: string) =>
    (await api.call<ConfigMap>('GET', `${CONFIG_MAPS}/${name}`, undefined, signal)).data ?? {};
  const reference = (await read('asterism-version')).kubernetesComponentsReference ?? '';
  if (!/^k8s-components-sha256-[0-9a-f]{64}$/.test(reference))
    throw bad('asterism-version names no components');
  const data = await read(reference);
  try {
    const list = components.parse(JSON.parse(data.components ?? ''));
    return {
      kubernetesVersion: data['cluster-version'] ?? '',
      components: list.map(({ URL, Hash, InstallPath, Extract }) => ({
        url: URL,
        hash: Hash,
        installPath: InstallPath,
        extract: Extract,
      })),
    };
  } catch (cause) {
    throw bad(`${reference} cannot be read`, cause);
  }
}

function bad(why: string, cause?: unknown): AsterismError {
  return new AsterismError('ERR_CLUSTER_VERSION', `the cluster's version is not known: ${why}`, { cause });
}

interface ConfigMap extends KubernetesObject {
  readonly data?: Readonly<Record<string, string>>;
}
