// A cluster in this process, for tests of rotations: an API server's objects, KeyServices, JoinService and nodes as far
// as a rotation sees them. Keys are real: derived from master secrets, or wrapped by KEKs in memory.
import { deepEqual, ok } from 'node:assert/strict';
import { diskDataKeyId, parseDiskKeyName } from '@asterism/disk/key-name';
import {
  type HomeConfiguration,
  KEY_CONFIGURATION,
  KEY_GENERATION_METRIC,
  keyConfigurationIn,
  keySecretData,
} from '@asterism/kms/key-configuration';
import { MemoryKek, MemoryStore } from '@asterism/kms/memory.fixture';
import { openKeyHome } from '@asterism/kms/open';
import { rewrapAll } from '@asterism/kms/rewrap';
import { parseRotationStatus, ROTATION_STATUS, renderRotationStatus } from '@asterism/kms/rotation-status';
import { storedKeys } from '@asterism/kms/stored-keys';
import { KEYS_NAMESPACE, secretName, secretOf } from '@asterism/kms/stores/kubernetes/secret';
import type { KeyHome } from '@asterism/kms/types';
import { parseKmsUri, renderKmsUri } from '@asterism/kms/uri';
import { KubernetesApiError, type KubernetesObject } from '@asterism/kubernetes/api';
import type { API } from '@asterism/rpc/gen/disk_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import type { AdminApi } from './admin-api.ts';

const SYSTEM = '/api/v1/namespaces/kube-system';
const SECRET = `${SYSTEM}/secrets/${KEY_CONFIGURATION.name}`;
const WRAPPED = `/api/v1/namespaces/${KEYS_NAMESPACE}/secrets`;
const STATUS = `${SYSTEM}/configmaps/${ROTATION_STATUS}`;

interface Stored extends KubernetesObject {
  readonly data: Readonly<Record<string, string>>;
}

export interface MemoryDisk {
  readonly node: string;
  readonly uuid: string;
  /** The only key that opens it. */
  passphrase: Uint8Array;
  /** What its header says: names of keys, with their envelopes where keys are stored. */
  header: { readonly name: string; readonly envelope: Uint8Array | undefined }[];
}

export class MemoryCluster implements AdminApi {
  readonly objects = new Map<string, Stored>();
  readonly disks: MemoryDisk[] = [];
  readonly store = new MemoryStore();
  /** By the key's URI without generation: what lies in a KMS outlives every configuration. */
  readonly #keks = new Map<string, MemoryKek>();
  #version = 0;
  /** Called in front of and behind each thing that changes or is asked; a test kills the command there. */
  step: (what: string) => Promise<void> = async () => {};
  /** What each KeyService says of itself; default: that it goes by the present configuration. */
  replicas: (version: string) => readonly string[] = (version) => [version, version];
  /** Called when an order is carried out; may throw, then it has failed. */
  onOrder: () => Promise<void> = async () => {};

  configure(homes: readonly HomeConfiguration[]): void {
    this.#put(SECRET, { metadata: { name: KEY_CONFIGURATION.name }, data: keySecretData({ homes }) });
  }

  get homes(): readonly HomeConfiguration[] {
    return keyConfigurationIn(this.objects.get(SECRET)?.data).homes;
  }

  kek(kmsUri: string): MemoryKek {
    const reference = parseKmsUri(kmsUri);
    ok(reference.kind === 'external');
    const name = renderKmsUri({ ...reference, generation: 1 });
    const kek = this.#keks.get(name) ?? new MemoryKek(reference.parameters.keyName ?? '');
    this.#keks.set(name, kek);
    return kek;
  }

  /** The home of a configuration, as a KeyService or a node that is recovered opens it. */
  async open(home: HomeConfiguration, previous?: HomeConfiguration): Promise<KeyHome> {
    const reference = parseKmsUri(home.kmsUri);
    if (reference.kind === 'cluster') return openKeyHome(home);
    const { clusterId = '', generation } = reference;
    const older = previous && { kek: this.kek(previous.kmsUri), generation: generation - 1 };
    return storedKeys({
      kek: this.kek(home.kmsUri),
      store: this.store,
      clusterId,
      generation,
      previous: older,
    });
  }

  /** A key as the KeyServices give it. */
  async key(id: string, generation = 0): Promise<{ key: Uint8Array; envelope: Uint8Array | undefined }> {
    const homes = this.homes;
    const newest = await this.open(homes.at(-1)!, homes.length > 1 ? homes[0] : undefined);
    const others = homes.length > 1 ? [await this.open(homes[0]!)] : [];
    const derived = [newest, ...others].find((one) => one.generation === generation);
    const home = newest.kind === 'external' || generation === 0 ? newest : derived;
    ok(home, `no KeyService gives keys of generation ${generation}`);
    return { key: await home.getDek(id, 32), envelope: await home.wrapped(id) };
  }

  /** A node that has joined, with the disk of its own. */
  async join(node: string, generation = 1): Promise<MemoryDisk> {
    const uuid = `00000000-0000-4000-8000-${String(this.disks.length + 1).padStart(12, '0')}`;
    const name = `${generation}.0`;
    const { key, envelope } = await this.key(dekId(uuid, name), generation);
    const disk = { node, uuid, passphrase: key, header: [{ name, envelope }] };
    this.disks.push(disk);
    this.#put(`${SYSTEM}/configmaps/disk-${uuid}`, {
      data: { instanceName: node, attestationKeyId: 'aa', key: name },
    });
    return disk;
  }

  /** The disk-keeper of a node, with the JoinService that it asks. */
  keeper(disk: MemoryDisk): Handlers<typeof API> {
    const path = `${SYSTEM}/configmaps/disk-${disk.uuid}`;
    const named = async (name: string) => {
      const { key, envelope } = await this.key(dekId(disk.uuid, name), parseDiskKeyName(name).generation);
      return { key, entry: { name, envelope } };
    };
    return {
      syncDisk: async () => {
        await this.step('the node is asked');
        const map = this.objects.get(path)!;
        const { nextKey, key: present = '', ...data } = map.data;
        if (nextKey !== undefined) {
          const [former, next] = [await named(present), await named(nextKey)];
          disk.header = [former.entry, next.entry];
          await this.step('the header names both keys');
          disk.passphrase = next.key;
          await this.step('the disk has its new key');
          this.#put(path, { ...map, data: { ...data, key: nextKey } });
          await this.step('the cluster has recorded it');
        }
        const { entry } = await named(nextKey ?? present);
        const changed = JSON.stringify(disk.header) !== JSON.stringify([entry]);
        disk.header = [entry];
        return { diskUuid: disk.uuid, keyName: entry.name, changed };
      },
    };
  }

  async call<T extends KubernetesObject>(method: string, path: string, body?: unknown): Promise<T> {
    const what = `${method} ${path.slice(SYSTEM.length)}`;
    await this.step(`before ${what}`);
    const answer = await this.#answer(method, path, body);
    await this.step(`after ${what}`);
    return structuredClone(answer) as T;
  }

  async text(path: string): Promise<string> {
    await this.step(`before GET ${path}`);
    const replicas = this.replicas(this.objects.get(SECRET)?.metadata?.resourceVersion ?? '');
    const [, pod = 0] = /pods\/key-service-(\d)/.exec(path) ?? [];
    const version = replicas[Number(pod)];
    if (version === undefined) throw new KubernetesApiError(path, 503, 'no endpoints');
    return `# TYPE x\n${KEY_GENERATION_METRIC}{version="${version}"} 1\n`;
  }

  async #answer(method: string, path: string, body: unknown): Promise<unknown> {
    const pods = this.replicas('').map((_, i) => ({
      metadata: { name: `key-service-${i}` },
      status: { phase: 'Running' },
    }));
    if (path.endsWith('/daemonsets/key-service')) return { status: { desiredNumberScheduled: pods.length } };
    if (path.startsWith(`${SYSTEM}/pods?`)) return { items: pods };
    if (path.startsWith(`${SYSTEM}/configmaps?`))
      return {
        metadata: {},
        items: [...this.objects].flatMap(([at, one]) => (at.includes('/configmaps/') ? [one] : [])),
      };
    if (path.startsWith(`${WRAPPED}?`)) {
      // An API server lists by name.
      const ids = [...this.store.objects.keys()].sort((a, b) => (secretName(a) < secretName(b) ? -1 : 1));
      return { metadata: {}, items: ids.map((id) => secretOf(id, this.store.objects.get(id)!)) };
    }
    if (path.startsWith(`${WRAPPED}/`)) {
      const [found] = [...this.store.objects].filter(([id]) => path.endsWith(`/${secretName(id)}`));
      return found && secretOf(...found, '1');
    }
    const given = body as Stored | undefined;
    const at = method === 'POST' ? `${path}/${given?.metadata?.name}` : path;
    const present = this.objects.get(at);
    if (method === 'POST' && present !== undefined) throw new KubernetesApiError(at, 409, 'AlreadyExists');
    if (method !== 'POST' && present === undefined) throw new KubernetesApiError(at, 404, 'NotFound');
    if (method === 'GET') return present;
    if (method === 'PUT' && given?.metadata?.resourceVersion !== present?.metadata?.resourceVersion)
      throw new KubernetesApiError(at, 409, 'Conflict');
    this.#put(at, given!);
    if (at === STATUS) await this.#rewrap();
    return this.objects.get(at);
  }

  #put(path: string, object: Partial<Stored>): void {
    const metadata = { ...object.metadata, name: path.slice(path.lastIndexOf('/') + 1) };
    const before = this.objects.get(path);
    const same = before !== undefined && JSON.stringify(before.data) === JSON.stringify(object.data);
    // An update that changes nothing is none.
    const resourceVersion = same ? (before.metadata?.resourceVersion ?? '') : String(++this.#version);
    this.objects.set(path, { data: {}, ...object, metadata: { ...metadata, resourceVersion } });
  }

  /** A KeyService carries the order out. */
  async #rewrap(): Promise<void> {
    const order = parseRotationStatus(this.objects.get(STATUS)?.data);
    if (order.state !== 'ordered') return;
    const [older, newer] = this.homes;
    ok(older && newer, 'no rotation is configured');
    try {
      await this.onOrder();
    } catch (error) {
      const failed = { ...order, state: 'failed', error: String(error) } as const;
      this.#put(STATUS, { data: renderRotationStatus(failed) });
      return;
    }
    const { clusterId = '', generation } = parseKmsUri(newer.kmsUri) as {
      clusterId?: string;
      generation: number;
    };
    const { total, rewrapped, alreadyDone, failed } = await rewrapAll({
      from: { kek: this.kek(older.kmsUri), generation: generation - 1 },
      to: { kek: this.kek(newer.kmsUri), generation },
      store: this.store,
      clusterId,
    });
    deepEqual(failed, []);
    this.#put(STATUS, {
      data: renderRotationStatus({ ...order, state: 'done', total, rewrapped, alreadyDone }),
    });
  }
}

export function dekId(uuid: string, keyName: string): string {
  return `key-${diskDataKeyId(uuid, parseDiskKeyName(keyName))}`;
}
