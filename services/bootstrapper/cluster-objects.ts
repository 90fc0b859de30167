import { toBase64 } from '@asterism/bytes/encoding';
import { type HomeConfiguration, KEY_CONFIGURATION, keySecretData } from '@asterism/kms/key-configuration';
import { KEYS_NAMESPACE } from '@asterism/kms/stores/kubernetes/secret';
import { componentsConfigMapName } from '@asterism/kubernetes/components/hash';
import type { Component } from '@asterism/kubernetes/install';

const NAMESPACE = 'kube-system';

/** What the services find in the cluster: names and keys are a contract with them. */
export interface ClusterFacts {
  readonly keyHome: HomeConfiguration;
  /** DEKs that were made before Kubernetes ran, as the store of the cluster keeps them. */
  readonly storedKeys: readonly object[];
  /** JSON, index -> {expected, warnOnly}. */
  readonly measurements: string;
  readonly measurementSalt: Uint8Array;
  readonly kubernetesVersion: string;
  readonly components: readonly Component[];
  readonly attestationVariant: string;
}

/** The init node's claim on its own disk: the same object that JoinService makes for a node that joins. */
export interface DiskBinding {
  readonly diskUuid: string;
  readonly instanceName: string;
  readonly attestationKeyId: string;
  /** Name of the disk's key, see DiskKeyName. */
  readonly key: string;
}

/** Objects before the services start, as one List in JSON. */
export function clusterObjects(facts: ClusterFacts, disk: DiskBinding): string {
  const items: object[] = [
    configMap('join-config', {
      data: { measurements: facts.measurements },
      binaryData: { measurementSalt: toBase64(facts.measurementSalt) },
    }),
    configMap('internal-config', {
      data: { attestationVariant: facts.attestationVariant, azureCVM: 'false' },
    }),
    configMap(componentsConfigMapName(facts.components), {
      immutable: true,
      data: {
        'cluster-version': facts.kubernetesVersion,
        components: JSON.stringify(
          facts.components.map(({ url, hash, installPath, extract }) => ({
            URL: url,
            Hash: hash,
            InstallPath: installPath,
            Extract: extract,
          })),
        ),
      },
    }),
    configMap('asterism-version', {
      data: {
        'cluster-version': facts.kubernetesVersion,
        kubernetesComponentsReference: componentsConfigMapName(facts.components),
      },
    }),
    configMap(`disk-${disk.diskUuid}`, {
      data: { instanceName: disk.instanceName, attestationKeyId: disk.attestationKeyId, key: disk.key },
    }),
  ];
  items.push(
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: KEY_CONFIGURATION.name, namespace: NAMESPACE },
      type: KEY_CONFIGURATION.type,
      data: keySecretData({ homes: [facts.keyHome] }),
    },
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: KEYS_NAMESPACE } },
    ...facts.storedKeys,
  );
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}

function configMap(name: string, content: object): object {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace: NAMESPACE }, ...content };
}
