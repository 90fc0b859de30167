// A workspace and its cluster, for tests of rotations. Nodes are asked over real aTLS.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import type { TestContext } from 'node:test';
import { toBase64, toHex } from '@asterism/bytes/encoding';
import type { ClusterConfig } from '@asterism/config/cluster-config';
import type { KmsConfig } from '@asterism/config/kms-config';
import { generateMasterSecret } from '@asterism/config/master-secret';
import type { ClusterState } from '@asterism/config/state';
import { Workspace } from '@asterism/config/workspace';
import { clusterId, deriveKey, MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import { parseDiskKeyName } from '@asterism/disk/key-name';
import { NO_STORE_URI, renderClusterKmsUri } from '@asterism/kms/cluster-uri';
import { MemoryStore } from '@asterism/kms/memory.fixture';
import { openKeyHome } from '@asterism/kms/open';
import { storedKeys } from '@asterism/kms/stored-keys';
import { parseKmsUri } from '@asterism/kms/uri';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/disk_pb';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { Output } from '../output.ts';
import { Progress } from '../progress.ts';
import { diskBindings } from './disk-bindings.ts';
import { externalKeyHome } from './key-home.ts';
import { recoveryHomes } from './recovery-homes.ts';
import { dekId, MemoryCluster, type MemoryDisk } from './rotate-kek.fixture.ts';
import { runRotateKek } from './run-rotate-kek.ts';
import type { DiskNode } from './sync-disk.ts';

const SILENT = { isTTY: false, write: () => true } as unknown as NodeJS.WriteStream;
const MEASUREMENT_SALT = new Uint8Array(32).fill(7);
const NODES = ['cp-0', 'worker-0'];
const signal = new AbortController().signal;

export const vault = (keyName: string): KmsConfig => ({
  type: 'vault',
  parameters: { address: 'https://bao.example:8200', keyName },
  credentials: { token: { file: 'token' } },
  v26Blobs: false,
  store: { type: 'kubernetes', parameters: {}, credentials: {} },
});

/** A workspace whose writes are steps as well. */
class SteppedWorkspace extends Workspace {
  kms: KmsConfig = { type: 'cluster' };
  step: (what: string) => Promise<void> = async () => {};

  override async config(): Promise<ClusterConfig> {
    return { kms: this.kms } as ClusterConfig;
  }
  override async create(...args: Parameters<Workspace['create']>): Promise<void> {
    await this.step(`before ${args[0]}`);
    await super.create(...args);
    await this.step(`after ${args[0]}`);
  }
  override async rename(from: string, to: string): Promise<void> {
    await this.step(`before ${from} is ${to}`);
    await super.rename(from, to);
    await this.step(`after ${from} is ${to}`);
  }
}

export async function scene(t: TestContext, kms: KmsConfig, smallDisk = false) {
  const folder = await temporaryFolder();
  if (smallDisk) {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder.path]);
    t.after(() => execFileSync('umount', [folder.path]));
  }
  t.after(() => folder[Symbol.asyncDispose]());
  const workspace = new SteppedWorkspace(folder.path);
  workspace.kms = kms;
  const cluster = new MemoryCluster();
  const secret = generateMasterSecret();
  const measurementSecret = deriveKey(secret.key, secret.salt, MEASUREMENT_SECRET_ID, 32);
  const id = toHex(clusterId(measurementSecret, MEASUREMENT_SALT));
  const keyHome = kms.type === 'cluster' ? undefined : externalKeyHome(kms, id, 1);
  const state: ClusterState = {
    ...{ schema: 1, name: 'test', uid: '00000001', provider: 'local', phase: 'initialized' },
    ...{ kubernetesVersion: 'v1.37.2', image: 'sha256:aa', endpoint: '127.0.0.1', nodes: [] },
    initSecret: toBase64(new Uint8Array(8)),
    measurementSalt: toBase64(MEASUREMENT_SALT),
    clusterId: id,
    ...(keyHome && { keyHome }),
  };
  await workspace.writeState(state);
  await workspace.create('token', 'first-token');
  if (keyHome === undefined) {
    await workspace.createMasterSecret(secret);
    cluster.configure([{ kmsUri: renderClusterKmsUri(secret), storageUri: NO_STORE_URI }]);
  } else {
    const { kmsUri, storageUri } = keyHome;
    cluster.configure([{ kmsUri, storageUri, credentials: { kms: { token: 'first-token' }, storage: {} } }]);
    await (await cluster.open(keyHome)).importDek(MEASUREMENT_SECRET_ID, measurementSecret);
  }
  const nodes: DiskNode[] = [];
  for (const name of NODES) {
    const disk = await cluster.join(name);
    const server = new AtlsGrpcServer({ issuer: fakeIssuer() });
    server.addService(API, cluster.keeper(disk));
    const { port } = await server.listen(0, '127.0.0.1');
    t.after(() => server.stop(0));
    nodes.push({ name, host: '127.0.0.1', port });
  }
  const verifier = fakeVerifier();
  const rotate = (giveUpMissing = false) =>
    runRotateKek(
      { workspace, progress: new Progress(SILENT), signal },
      cluster,
      { nodes, bindings: diskBindings(cluster), verifier, signal, patienceMs: 200, pauseMs: 10 },
      { giveUpMissing },
    );
  return { workspace, cluster, state, secret, measurementSecret, rotate };
}

export type Scene = Awaited<ReturnType<typeof scene>>;

/** What the workspace alone knows opens this disk: no Kubernetes is asked. */
async function recovers({ workspace, cluster }: Scene, disk: MemoryDisk): Promise<boolean> {
  const homes = await recoveryHomes(
    { workspace, signal, out: new Output('text') },
    await workspace.config(),
    {},
  );
  for (const { kmsUri, storageUri } of homes) {
    const reference = parseKmsUri(kmsUri);
    const store = new MemoryStore();
    for (const { name, envelope } of disk.header)
      if (envelope !== undefined) store.objects.set(dekId(disk.uuid, name), envelope);
    const home =
      reference.kind === 'cluster'
        ? await openKeyHome({ kmsUri, storageUri })
        : storedKeys({
            ...{ kek: cluster.kek(kmsUri), store, generation: reference.generation },
            clusterId: reference.clusterId ?? '',
          });
    for (const { name, envelope } of disk.header) {
      if (reference.kind === 'cluster' && parseDiskKeyName(name).generation !== reference.generation)
        continue;
      if (reference.kind === 'external' && envelope === undefined) continue;
      const key = await home.getDek(dekId(disk.uuid, name), 32).catch(() => undefined);
      if (key !== undefined && Buffer.from(key).equals(disk.passphrase)) return true;
    }
  }
  return false;
}

/** Nothing is lost: neither to whoever recovers, nor to nodes that ask the cluster. */
export async function nothingIsLost(found: Scene, when: string): Promise<void> {
  const { cluster, measurementSecret } = found;
  assert.deepEqual((await cluster.key(MEASUREMENT_SECRET_ID)).key, measurementSecret, when);
  for (const disk of cluster.disks) {
    assert.ok(await recovers(found, disk), `${disk.node} can be recovered ${when}`);
    const { key: name = '', nextKey } = cluster.objects.get(
      `/api/v1/namespaces/kube-system/configmaps/disk-${disk.uuid}`,
    )!.data;
    const keys = [];
    for (const one of [name, nextKey])
      if (one !== undefined)
        keys.push((await cluster.key(dekId(disk.uuid, one), parseDiskKeyName(one).generation)).key);
    assert.ok(
      keys.some((key) => Buffer.from(key).equals(disk.passphrase)),
      `${disk.node} can rejoin ${when}`,
    );
  }
}

/** The generation that the workspace believes in. */
export async function reached({ workspace }: Scene): Promise<number | undefined> {
  const { keyHome } = await workspace.requireState();
  if (keyHome !== undefined) return parseKmsUri(keyHome.kmsUri).generation;
  return (await workspace.masterSecret())?.generation;
}
