// Rotations that are killed at every step, and run again. Nodes are asked over real aTLS; the cluster is in this process.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { describe, it, type TestContext } from 'node:test';
import { toBase64, toHex } from '@asterism/bytes/encoding';
import type { ClusterConfig } from '@asterism/config/cluster-config';
import type { KmsConfig } from '@asterism/config/kms-config';
import { generateMasterSecret, MASTER_SECRET_FILE, renderMasterSecret } from '@asterism/config/master-secret';
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
import { retiredSecretFile, runRotateKek } from './run-rotate-kek.ts';
import type { DiskNode } from './sync-disk.ts';

const SILENT = { isTTY: false, write: () => true } as unknown as NodeJS.WriteStream;
const MEASUREMENT_SALT = new Uint8Array(32).fill(7);
const NODES = ['cp-0', 'worker-0'];
const signal = new AbortController().signal;

const vault = (keyName: string): KmsConfig => ({
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

async function scene(t: TestContext, kms: KmsConfig, smallDisk = false) {
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

type Scene = Awaited<ReturnType<typeof scene>>;

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
async function nothingIsLost(found: Scene, when: string): Promise<void> {
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
async function reached({ workspace }: Scene): Promise<number | undefined> {
  const { keyHome } = await workspace.requireState();
  if (keyHome !== undefined) return parseKmsUri(keyHome.kmsUri).generation;
  return (await workspace.masterSecret())?.generation;
}

/** Runs a rotation that is killed at its step n. @returns the step; undefined where there are no more */
async function killAt(found: Scene, n: number): Promise<string | undefined> {
  let count = 0;
  let last: string | undefined;
  const step = async (what: string) => {
    if (count++ < n) return;
    last ??= what;
    throw new Error('killed');
  };
  found.cluster.step = found.workspace.step = step;
  await found.rotate().then(
    () => {},
    (error) => assert.ok(last !== undefined, String(error)),
  );
  found.cluster.step = found.workspace.step = async () => {};
  return last;
}

for (const [what, before, after] of [
  ['derived keys', { type: 'cluster' }, { type: 'cluster' }],
  ['stored keys, the same key of the KMS', vault('k'), vault('k')],
  ['stored keys, another key of the KMS', vault('k'), vault('other')],
] as const) {
  it(`a rotation that is killed at any step loses nothing, and ends when it is run again: ${what}`, async (t) => {
    let n = 0;
    for (; ; n++) {
      const found = await scene(t, before);
      const { workspace, cluster, secret } = found;
      workspace.kms = after;
      const disks = cluster.disks.map(({ passphrase }) => passphrase);
      const killed = await killAt(found, n);
      await nothingIsLost(found, `after a kill at step ${n} (${killed})`);
      // Where it was over, another run would begin the next rotation.
      if ((await reached(found)) !== 2) await found.rotate();
      await nothingIsLost(found, `at the end, after a kill at step ${n} (${killed})`);
      assert.deepEqual(
        cluster.homes.map(({ kmsUri }) => parseKmsUri(kmsUri).generation),
        [2],
      );
      assert.deepEqual(
        (await readdir(workspace.folder)).filter((name) => name.endsWith('.tmp')),
        [],
      );
      const done = await workspace.requireState();
      assert.equal(done.nextKeyHome, undefined);
      if (before.type === 'cluster') {
        assert.equal((await workspace.masterSecret())?.generation, 2);
        assert.equal(await workspace.read(retiredSecretFile(1)), renderMasterSecret(secret));
        for (const [i, disk] of cluster.disks.entries()) {
          assert.deepEqual(disk.header, [{ name: '2.0', envelope: undefined }]);
          assert.notDeepEqual(disk.passphrase, disks[i]);
        }
      } else {
        assert.equal(parseKmsUri(done.keyHome?.kmsUri ?? '').generation, 2);
        for (const [i, disk] of cluster.disks.entries()) {
          assert.match(Buffer.from(disk.header[0]!.envelope!).toString(), /"generation":2/);
          assert.deepEqual(disk.passphrase, disks[i]);
        }
        for (const bytes of cluster.store.objects.values())
          assert.match(Buffer.from(bytes).toString(), /"generation":2/);
      }
      if (killed === undefined) break;
    }
    assert.ok(n > 30, `${n} steps`);
  });
}

for (const kms of [{ type: 'cluster' }, vault('k')] as const) {
  it(`a disk that is full at any write of the workspace loses nothing: kms.type ${kms.type}`, {
    skip: process.getuid?.() !== 0 && 'mounting needs root',
  }, async (t) => {
    let [at, refused] = [0, 0];
    for (; ; at++) {
      const found = await scene(t, kms, true);
      const { workspace } = found;
      const filler = workspace.path('filler');
      let writes = 0;
      workspace.step = async (what) => {
        if (what.startsWith('before') && writes++ === at) fillDisk(filler);
      };
      const error = await found.rotate().then(
        () => undefined,
        (reason) => reason,
      );
      workspace.step = async () => {};
      if (writes <= at) break;
      await nothingIsLost(found, `with a full disk at write ${at}`);
      await rm(filler);
      // What is only renamed needs no space.
      if (error !== undefined) {
        refused++;
        assert.equal(error.code, 'ERR_WRITE');
        assert.match(error.message, /cannot be written: no space left on device/);
        await found.rotate();
      }
      await nothingIsLost(found, `after a full disk at write ${at}`);
      assert.equal(await reached(found), 2);
    }
    assert.equal(refused, 2);
  });
}

describe('a rotation', () => {
  const never = async () => assert.fail('nothing is asked');

  it('with newer credentials for the same key uses them for the former generation too', async (t) => {
    const { workspace, cluster, rotate } = await scene(t, vault('k'));
    await workspace.create('token', 'second-token', { overwrite: true });
    let during: unknown;
    cluster.onOrder = async () => {
      during = cluster.homes.map(({ credentials }) => credentials?.kms.token);
    };
    await rotate();
    assert.deepEqual(during, ['second-token', 'second-token']);
  });

  it('to a key of another KMS keeps the credentials of the former one', async (t) => {
    const { workspace, cluster, rotate } = await scene(t, vault('k'));
    workspace.kms = vault('other');
    await workspace.create('token', 'second-token', { overwrite: true });
    let during: unknown;
    cluster.onOrder = async () => {
      during = cluster.homes.map(({ credentials }) => credentials?.kms.token);
    };
    await rotate();
    assert.deepEqual(during, ['first-token', 'second-token']);
  });

  it('is run until nothing is left that the former key wraps', async (t) => {
    const { cluster, rotate, state } = await scene(t, vault('k'));
    let runs = 0;
    cluster.onOrder = async () => {
      // A key that a KeyService has begun to make before it heard of the rotation comes after the first run.
      if (++runs === 2) await (await cluster.open(state.keyHome!)).getDek('key-late', 32);
    };
    const { rewrapped } = await rotate();
    assert.equal(runs, 3);
    assert.equal(rewrapped, cluster.store.objects.size);
    assert.match(Buffer.from(cluster.store.objects.get('key-late')!).toString(), /"generation":2/);
  });

  it('retires nothing while a KeyService does not say that it has the configuration', async (t) => {
    const { cluster, rotate, workspace } = await scene(t, vault('k'));
    const stop = new AbortController();
    cluster.replicas = (version) => {
      if (cluster.homes.length === 2) setTimeout(() => stop.abort(), 50);
      return [version, cluster.homes.length === 2 ? 'an older one' : version];
    };
    const timer = setTimeout(() => assert.fail('it went on'), 60_000);
    const ended = rotate().finally(() => clearTimeout(timer));
    await new Promise<void>((resolve) => stop.signal.addEventListener('abort', () => resolve()));
    assert.equal(cluster.homes.length, 2);
    for (const bytes of cluster.store.objects.values())
      assert.match(Buffer.from(bytes).toString(), /"generation":1/);
    cluster.replicas = (version) => [version, version];
    await ended;
    assert.equal(parseKmsUri((await workspace.requireState()).keyHome?.kmsUri ?? '').generation, 2);
  });

  it('that was cut off while the former key was retired waits for every KeyService all the same', async (t) => {
    const found = await scene(t, vault('k'));
    const { cluster, workspace } = found;
    cluster.step = async () => {
      if (cluster.homes.length === 1 && parseKmsUri(cluster.homes[0]!.kmsUri).generation === 2)
        throw new Error('killed');
    };
    await assert.rejects(found.rotate(), /killed/);
    cluster.step = async () => {};
    let asked = 0;
    cluster.replicas = (version) => (++asked < 6 ? ['an older one', version] : [version, version]);
    for (const disk of cluster.disks)
      assert.match(Buffer.from(disk.header[0]!.envelope!).toString(), /"generation":1/);
    await found.rotate();
    assert.ok(asked >= 6);
    assert.equal((await workspace.requireState()).nextKeyHome, undefined);
  });

  it('whose credentials cannot be read leaves no trace, and another key may be configured then', async (t) => {
    const { cluster, workspace, state, rotate } = await scene(t, vault('k'));
    await workspace.remove('token');
    cluster.step = never;
    await assert.rejects(rotate(), { code: 'ERR_CREDENTIALS' });
    assert.deepEqual(await workspace.requireState(), state);
    cluster.step = async () => {};
    await workspace.create('token', 'first-token');
    // Saved, but the cluster has not heard of it.
    cluster.step = async (what) => {
      if (what.startsWith('before')) throw new Error('killed');
    };
    workspace.kms = vault('mistyped');
    await assert.rejects(rotate(), /killed/);
    cluster.step = async () => {};
    workspace.kms = vault('other');
    await rotate();
    assert.match((await workspace.requireState()).keyHome?.kmsUri ?? '', /keyName=other/);
  });

  it('to a key that was mistyped is given up for another one, while it has wrapped nothing', async (t) => {
    const { cluster, workspace, rotate } = await scene(t, vault('k'));
    workspace.kms = vault('mistyped');
    cluster.onOrder = async () => {
      throw new Error('no such key');
    };
    await assert.rejects(rotate(), { code: 'ERR_REWRAP', message: /no such key/ });
    assert.match(cluster.homes[1]!.kmsUri, /keyName=mistyped/);
    cluster.onOrder = async () => {};
    workspace.kms = vault('other');
    await rotate();
    assert.match((await workspace.requireState()).keyHome?.kmsUri ?? '', /keyName=other/);
    assert.ok(cluster.homes.every(({ kmsUri }) => /keyName=other/.test(kmsUri)));
  });

  it('to a key that has wrapped something must end before another one begins', async (t) => {
    const { cluster, workspace, rotate } = await scene(t, vault('k'));
    workspace.kms = vault('other');
    cluster.onOrder = async () => {
      await cluster.key('key-new');
      throw new Error('too busy');
    };
    await assert.rejects(rotate(), { code: 'ERR_REWRAP', message: /too busy/ });
    workspace.kms = vault('third');
    await assert.rejects(rotate(), { code: 'ERR_OTHER_KMS', message: /change the configuration back/ });
    assert.match(cluster.homes[1]!.kmsUri, /keyName=other/);
    cluster.onOrder = async () => {};
    workspace.kms = vault('other');
    await rotate();
    assert.match(Buffer.from(cluster.store.objects.get('key-new')!).toString(), /"generation":2/);
  });

  it('names the nodes that do not answer, and which key they need', async (t) => {
    for (const [kms, hint] of [
      [{ type: 'cluster' }, /the old key stays in use/],
      [vault('k'), /Leave the former key enabled/],
    ] as const) {
      const { cluster, workspace, rotate } = await scene(t, kms);
      cluster.step = async (what) => {
        if (what === 'the node is asked') throw new Error('down');
      };
      await assert.rejects(rotate(), (error: Error & { code: string }) => {
        assert.equal(error.code, 'ERR_ROTATION_DISKS');
        assert.match(error.message, /cp-0 .*worker-0 /);
        assert.match(error.message, hint);
        return true;
      });
      if (kms.type !== 'cluster') assert.ok((await workspace.requireState()).nextKeyHome);
    }
  });

  it('does not lose disks of machines that are gone unless it is told to', async (t) => {
    const { cluster, workspace, rotate } = await scene(t, { type: 'cluster' });
    await cluster.join('worker-9');
    await assert.rejects(rotate(), { code: 'ERR_ROTATION_DISKS', message: /worker-9 .*--give-up-missing/ });
    assert.equal(cluster.homes.length, 2);
    await rotate(true);
    assert.equal(cluster.homes.length, 1);
    assert.equal((await workspace.masterSecret())?.generation, 2);
  });

  it('writes over no retired secret of an earlier cluster', async (t) => {
    const { workspace, rotate, secret } = await scene(t, { type: 'cluster' });
    const earlier = renderMasterSecret(generateMasterSecret());
    await workspace.create(retiredSecretFile(1), earlier);
    await assert.rejects(rotate(), { code: 'ERR_EXISTS', message: /move it away/ });
    assert.equal(await workspace.read(retiredSecretFile(1)), earlier);
    assert.equal(await workspace.read(MASTER_SECRET_FILE), renderMasterSecret(secret));
    await workspace.rename(retiredSecretFile(1), 'elsewhere');
    await rotate();
    assert.equal(await workspace.read(retiredSecretFile(1)), renderMasterSecret(secret));
  });

  it('with a configuration of the other kind, or of another store, asks nothing', async (t) => {
    const derived = await scene(t, { type: 'cluster' });
    derived.workspace.kms = vault('k');
    const stored = await scene(t, vault('k'));
    stored.workspace.kms = { type: 'cluster' };
    const elsewhere = await scene(t, vault('k'));
    elsewhere.workspace.kms = {
      ...(vault('k') as Extract<KmsConfig, { store: unknown }>),
      store: { type: 'aws', parameters: { bucket: 'abc', region: 'eu-central-1' }, credentials: {} },
    };
    for (const { cluster, rotate } of [derived, stored, elsewhere]) {
      cluster.step = never;
      await assert.rejects(rotate(), { code: 'ERR_OTHER_KMS' });
    }
  });
});

/** To the last byte. */
function fillDisk(path: string): void {
  for (const size of [1 << 16, 1 << 12, 1]) {
    try {
      for (;;) appendFileSync(path, new Uint8Array(size));
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
    }
  }
}
