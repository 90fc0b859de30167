import { ParseError, PolicyError } from '@asterism/errors/errors';
import { type KubernetesApi, KubernetesApiError, type KubernetesObject } from '@asterism/kubernetes/api';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const CONFIG_MAPS = '/api/v1/namespaces/kube-system/configmaps';

/** Whose a disk is: the machine by its provider's name and by its TPM's attestation key. */
export interface DiskOwner {
  readonly instanceName: string;
  readonly attestationKeyId: string;
}

/** @throws ParseError ERR_DISK_UUID */
export function readDiskUuid(text: string): string {
  const uuid = text.toLowerCase();
  if (!UUID.test(uuid)) throw new ParseError('disk_uuid is no UUID', { code: 'ERR_DISK_UUID' });
  return uuid;
}

/** Binds a disk to a machine, once and for all; that one may ask again. Of two that ask at once one loses. */
export async function bindDisk(
  api: KubernetesApi,
  uuid: string,
  owner: DiskOwner,
  signal: AbortSignal,
): Promise<void> {
  const object = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: `disk-${uuid}`, namespace: 'kube-system' },
    data: { ...owner },
  };
  try {
    await api.call('POST', CONFIG_MAPS, object, signal);
  } catch (error) {
    // 409: it exists. The API server decides, so two requests at once cannot both create it.
    if (!(error instanceof KubernetesApiError) || error.status !== 409) throw error;
    await checkDiskOwner(api, uuid, owner, signal);
  }
}

/** @throws PolicyError ERR_DISK_OWNER the disk is another machine's, or nobody's */
export async function checkDiskOwner(
  api: KubernetesApi,
  uuid: string,
  owner: DiskOwner,
  signal: AbortSignal,
): Promise<void> {
  let data: Partial<DiskOwner> | undefined;
  try {
    data = (await api.call<Binding>('GET', `${CONFIG_MAPS}/disk-${uuid}`, undefined, signal)).data;
  } catch (error) {
    if (!(error instanceof KubernetesApiError) || error.status !== 404) throw error;
  }
  if (data?.instanceName !== owner.instanceName || data.attestationKeyId !== owner.attestationKeyId) {
    throw new PolicyError(
      'ERR_DISK_OWNER',
      'the disk does not belong to this machine: its key is given to no other',
    );
  }
}

interface Binding extends KubernetesObject {
  readonly data?: Partial<DiskOwner>;
}
