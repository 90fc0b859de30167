import { toBase64 } from '@asterism/bytes/encoding';
import { componentsConfigMapName } from '@asterism/kubernetes/components/hash';
import type { Component } from '@asterism/kubernetes/install';

const NAMESPACE = 'kube-system';

/** What the services find in the cluster: names and keys are a contract with them. */
export interface ClusterFacts {
  /** Undefined where an external KMS holds the key. */
  readonly masterSecret: { readonly key: Uint8Array; readonly salt: Uint8Array } | undefined;
  /** JSON, index -> {expected, warnOnly}. */
  readonly measurements: string;
  readonly measurementSalt: Uint8Array;
  readonly kubernetesVersion: string;
  readonly components: readonly Component[];
  readonly attestationVariant: string;
  readonly kmsIsExternal: boolean;
}

/** The init node's claim on its own disk: the same object that JoinService makes for a node that joins. */
export interface DiskBinding {
  readonly diskUuid: string;
  readonly instanceName: string;
  readonly attestationKeyId: string;
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
      data: { instanceName: disk.instanceName, attestationKeyId: disk.attestationKeyId },
    }),
  ];
  if (facts.masterSecret !== undefined) {
    items.push({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'asterism-mastersecret', namespace: NAMESPACE },
      type: 'Opaque',
      data: {
        mastersecret: toBase64(facts.masterSecret.key),
        salt: toBase64(facts.masterSecret.salt),
      },
    });
  }
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}

function configMap(name: string, content: object): object {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace: NAMESPACE }, ...content };
}
