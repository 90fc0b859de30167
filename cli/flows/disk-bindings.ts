import { FIRST_DISK_KEY } from '@asterism/disk/key-name';
import { AsterismError } from '@asterism/errors/errors';
import { type DataObject, KubernetesApiError, replaceUnchanged } from '@asterism/kubernetes/api';
import { type AdminApi, listed } from './admin-api.ts';

const CONFIG_MAPS = '/api/v1/namespaces/kube-system/configmaps';
const PREFIX = 'disk-';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** Those that are no disks may be large. */
const PAGE = 100;
const TRIES = 5;

/** What the cluster has recorded of one disk: ConfigMap disk-<uuid>, see services/join-service. */
export interface DiskRecord {
  readonly diskUuid: string;
  /** The machine that it is bound to, as the provider calls it. */
  readonly instanceName: string;
  /** Name of the key that opens it. */
  readonly key: string;
  /** Name of the key that it shall have; undefined where no change is under way. */
  readonly nextKey: string | undefined;
}

export interface DiskBindings {
  list(signal: AbortSignal): Promise<DiskRecord[]>;
  /** @throws AsterismError ERR_DISK_UNKNOWN nothing is recorded of it */
  get(diskUuid: string, signal: AbortSignal): Promise<DiskRecord>;
  /**
   * Has the cluster wish for another key. A change that is under way goes on as it is.
   * @param from name of the present key
   * @returns the key that the disk shall have now
   * @throws AsterismError ERR_DISK_STATE the disk has another key than `from`
   */
  wish(diskUuid: string, from: string, to: string, signal: AbortSignal): Promise<string>;
}

export function diskBindings(api: AdminApi): DiskBindings {
  async function read(diskUuid: string, signal: AbortSignal): Promise<DataObject> {
    if (!UUID.test(diskUuid))
      throw new AsterismError('ERR_DISK_UUID', 'a node calls its disk what is no UUID');
    try {
      return await api.call('GET', `${CONFIG_MAPS}/${PREFIX}${diskUuid}`, undefined, signal);
    } catch (cause) {
      if (!(cause instanceof KubernetesApiError) || cause.status !== 404) throw cause;
      throw new AsterismError('ERR_DISK_UNKNOWN', `the cluster has no record of disk ${diskUuid}`, { cause });
    }
  }

  return {
    async list(signal) {
      const records: DiskRecord[] = [];
      for await (const map of listed<DataObject>(api, CONFIG_MAPS, PAGE, signal))
        if (isDisk(map)) records.push(recordOf(map));
      return records;
    },

    async get(diskUuid, signal) {
      return recordOf(await read(diskUuid, signal));
    },

    async wish(diskUuid, from, to, signal) {
      for (let attempt = 0; attempt < TRIES; attempt++) {
        const map = await read(diskUuid, signal);
        const { key, nextKey } = recordOf(map);
        if (nextKey !== undefined && nextKey !== key) return nextKey;
        if (key !== from)
          throw new AsterismError(
            'ERR_DISK_STATE',
            `disk ${diskUuid} has the key ${from}, but the cluster has recorded ${key}: somebody else is at work; try again`,
          );
        const wished = { ...map, data: { ...map.data, nextKey: to } };
        const path = `${CONFIG_MAPS}/${map.metadata?.name}`;
        if ((await replaceUnchanged(api, path, wished, signal)) !== undefined) return to;
      }
      throw new AsterismError(
        'ERR_DISK_STATE',
        `the record of disk ${diskUuid} changes all the time; try again`,
      );
    },
  };
}

function isDisk({ metadata }: DataObject): boolean {
  const name = metadata?.name ?? '';
  return name.startsWith(PREFIX) && UUID.test(name.slice(PREFIX.length));
}

function recordOf({ metadata, data }: DataObject): DiskRecord {
  return {
    diskUuid: (metadata?.name ?? '').slice(PREFIX.length),
    instanceName: data?.instanceName ?? '',
    key: data?.key ?? FIRST_DISK_KEY,
    nextKey: data?.nextKey,
  };
}
