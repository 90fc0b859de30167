// An init whose keys are kept by an external KMS. The KEK is in memory; disk, journal and folder of wrapped keys are real.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readdir } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { isZero } from '@asterism/bytes/bytes';
import { fromBase64, fromUtf8, toHex } from '@asterism/bytes/encoding';
import { clusterId, MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import type { AsterismError } from '@asterism/errors/errors';
import { KmsUnavailableError } from '@asterism/kms/errors';
import { parseKeyConfiguration } from '@asterism/kms/key-configuration';
import { MemoryKek, MemoryStore } from '@asterism/kms/memory.fixture';
import { storedKeys } from '@asterism/kms/stored-keys';
import { openFolderStore } from '@asterism/kms/stores/folder/store';
import { parseKmsUri } from '@asterism/kms/uri';
import { InitRequestSchema } from '@asterism/rpc/gen/init_pb';
import { clusterIdPcr } from '@asterism/runtime/machine-tpm';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { instance, makeTestMachine, type TestMachine, testMetadata } from './fake-machine.ts';
import type { Keys } from './init-phases.ts';
import { checkInitRequest } from './init-request.ts';
import { Initializer } from './initializer.ts';
import { Journal } from './journal.ts';
import { MachineKeys } from './machine-keys.ts';
import { NodeLock } from './node-lock.ts';

type Request = MessageInitShape<typeof InitRequestSchema>;

const quiet = { info() {}, error() {} };
const measurementSecret = new Uint8Array(randomBytes(32));
const measurementSalt = new Uint8Array(32).fill(5);
const expectedId = clusterId(measurementSecret, measurementSalt);
const vault = (keyName: string, id = toHex(expectedId)) =>
  `kms://vault?address=https%3A%2F%2Fbao.example%3A8200&keyName=${keyName}&clusterID=${id}`;
const request: Request = {
  kmsUri: vault('k'),
  storageUri: 'storage://kubernetes',
  kmsCredentials: Buffer.from('{"kms":{"token":"hunter22"},"storage":{}}'),
  measurementSecret,
  measurementSalt,
  kubernetesVersion: 'v1.37.2',
  kubernetesComponents: ['kubeadm', 'kubelet', 'kubectl'].map((name) => ({
    url: `http://10.77.1.1:8080/components/${name}`,
    hash: `sha256:${'0'.repeat(64)}`,
    installPath: `/run/state/bin/${name}`,
    extract: false,
  })),
  clusterName: 'test',
  joinMeasurements: Buffer.from('{}'),
};

interface AppliedObject {
  readonly metadata: { readonly name: string; readonly annotations?: Record<string, string> };
  readonly data: Record<string, string>;
}

describe('init with an external KMS', () => {
  let machine: TestMachine;
  /** By key name: what lies in a KMS outlives each life of a machine. */
  let keks: Map<string, MemoryKek>;
  let folder: string;
  let bucket: MemoryStore;

  async function fresh(): Promise<void> {
    await machine?.remove();
    machine = await makeTestMachine();
    keks = new Map(['k', 'other'].map((name) => [name, new MemoryKek(name)]));
    bucket = new MemoryStore();
    folder = `${machine.folder}/wrapped-keys`;
    await mkdir(folder);
  }
  beforeEach(fresh);
  afterEach(() => machine.remove());

  /** As MachineKeys, with KEKs in memory; a store that is not Kubernetes is in memory too. */
  function keys(): Keys {
    const real = new MachineKeys(folder);
    return {
      async open({ kmsUri, storageUri }) {
        const reference = parseKmsUri(kmsUri);
        assert.ok(reference.kind === 'external');
        const { generation, clusterId = '', parameters } = reference;
        const store = storageUri === 'storage://kubernetes' ? await openFolderStore(folder) : bucket;
        const kek = keks.get(parameters.keyName ?? '')!;
        return storedKeys({ kek, store, clusterId, generation, retry: { tries: 1 } });
      },
      storedKeys: (order) => real.storedKeys(order),
      forget: () => real.forget(),
      clusterId: (...both) => real.clusterId(...both),
    };
  }

  function boot(lock = new NodeLock()) {
    return new Initializer({
      machine: machine.machine,
      metadata: testMetadata(instance('CP_0', '10.77.1.2', 'ControlPlane')),
      keys: keys(),
      policy: { settle: () => '{"4":{}}' },
      lock,
      log: quiet,
    });
  }
  const init = async (initializer: Initializer, more: Request = {}) =>
    initializer.begin(checkInitRequest(create(InitRequestSchema, { ...request, ...more }))).result;
  const failure = (what: Promise<unknown>): Promise<AsterismError | undefined> =>
    what.then(
      () => undefined,
      (error) => error,
    );
  const objects = (): Map<string, AppliedObject> =>
    new Map(
      machine.node.applied
        .filter((text) => text.includes('join-config'))
        .flatMap((text) => JSON.parse(text).items as AppliedObject[])
        .map((object) => [
          object.metadata.annotations?.['asterism.dev/dek-id'] ?? object.metadata.name,
          object,
        ]),
    );

  /** Cluster, disk and header agree, and nothing of it needs anything but the KMS. */
  async function works(): Promise<void> {
    const header = await machine.machine.disk.header();
    assert.deepEqual(machine.tpm.pcrs.get(15), clusterIdPcr(expectedId));
    const id = `key-${header.uuid}`;
    const store = new MemoryStore();
    for (const [name, { data }] of objects())
      if (data?.envelope) store.objects.set(name, fromBase64(data.envelope));
    assert.deepEqual([...store.objects.keys()].sort(), [id, MEASUREMENT_SECRET_ID].sort());
    const home = (from: MemoryStore) =>
      storedKeys({ kek: keks.get('k')!, store: from, clusterId: toHex(expectedId), generation: 1 });
    assert.deepEqual(await home(store).getDek(MEASUREMENT_SECRET_ID, 32), measurementSecret);
    assert.equal(await machine.machine.disk.testKey(await home(store).getDek(id, 32)), true);
    const { keys: named = [], measurementSecret: wrapped } = header.keyToken ?? {};
    assert.deepEqual(
      named.map(({ name }) => name),
      ['1.0'],
    );
    const inHeader = new MemoryStore();
    inHeader.objects.set(id, named[0]!.envelope!).set(MEASUREMENT_SECRET_ID, wrapped!);
    assert.equal(await machine.machine.disk.testKey(await home(inHeader).getDek(id, 32)), true);
    assert.deepEqual(await home(inHeader).getDek(MEASUREMENT_SECRET_ID, 32), measurementSecret);
    assert.deepEqual(await readdir(folder), [], 'no copies are left that no rotation would find');
    assert.equal(await machine.machine.disk.testKey(machine.temporaryKey), false);
  }

  it('gives the disk a key that the KMS wraps, and hands all wrapped keys to Kubernetes', async () => {
    const answer = await init(boot());
    assert.equal(toHex(answer.clusterId), toHex(expectedId));
    await works();
    const configuration = parseKeyConfiguration(
      fromUtf8(fromBase64(objects().get('asterism-kms')!.data.configuration!)),
    );
    assert.deepEqual(configuration.homes, [
      {
        kmsUri: request.kmsUri,
        storageUri: request.storageUri,
        credentials: { kms: { token: 'hunter22' }, storage: {} },
      },
    ]);
    const journal = JSON.stringify(await Journal.load(machine.machine.layout.initJournal));
    assert.doesNotMatch(journal, /hunter22/);
    assert.ok(!journal.includes(Buffer.from(measurementSecret).toString('base64')));
  });

  it('resumes after a kill at every step of node and KMS', async () => {
    let total = 1;
    for (let dieAt = -1; dieAt < total; dieAt++) {
      await fresh();
      let count = 0;
      const step = async () => {
        if (count++ === dieAt) throw new Error('killed');
      };
      machine.node.hook = step;
      for (const kek of keks.values()) kek.before = step;
      const died = await failure(init(boot()));
      if (dieAt === -1) total = count;
      else {
        assert.match(String(died), /killed/, `step ${dieAt}`);
        // Its credentials may have run out in between.
        await init(boot(), { kmsCredentials: Buffer.from('{"kms":{"token":"a-newer-one"},"storage":{}}') });
      }
      await works();
    }
    assert.ok(total > 25);
  });

  it('a KMS that is down shows before anything is final, and another order may come', async () => {
    for (const error of [
      new KmsUnavailableError('ERR_KMS_UNAVAILABLE', 'nobody there'),
      new KmsUnavailableError('ERR_KMS_THROTTLED', 'too busy'),
    ]) {
      keks.get('k')!.before = async () => {
        throw error;
      };
      const lock = new NodeLock();
      assert.equal((await failure(init(boot(lock))))?.code, error.code);
      assert.equal(lock.holder, undefined);
    }
    assert.ok(isZero(machine.tpm.pcrs.get(15)!));
    assert.deepEqual(machine.node.steps, []);
    assert.equal(await machine.machine.disk.testKey(machine.temporaryKey), true);
    keks.get('k')!.before = async () => {};
    await init(boot());
    await works();
  });

  it('once the node is a member, the same cluster by another KMS, key or store is another order', async () => {
    machine.node.hook = async () => {
      throw new Error('killed');
    };
    await assert.rejects(init(boot()), /killed/);
    machine.node.hook = async () => {};
    assert.ok(!isZero(machine.tpm.pcrs.get(15)!));
    for (const other of [
      { kmsUri: vault('other') },
      { storageUri: 'storage://aws?bucket=abc&region=eu-central-1' },
    ])
      assert.equal((await failure(init(boot(), other)))?.code, 'ERR_INIT_ORDER');
    await init(boot());
    await works();
  });

  it('before that, another KMS may take the place of one that did not work', async () => {
    keks.get('other')!.before = async (what) => {
      // The key is made and stored; the proof of it fails.
      if (what === 'unwrap') throw new Error('killed');
    };
    await assert.rejects(init(boot(), { kmsUri: vault('other') }), /killed/);
    assert.ok(isZero(machine.tpm.pcrs.get(15)!));
    await init(boot());
    await works();
  });

  it('refuses an order whose KMS, secret and salt do not belong together', async () => {
    for (const [what, more] of [
      ['no measurement secret', { measurementSecret: new Uint8Array() }],
      ['the id of another cluster', { kmsUri: vault('k', 'ab'.repeat(32)) }],
      ['another secret', { measurementSecret: new Uint8Array(32).fill(1) }],
      ['another salt', { measurementSalt: new Uint8Array(32).fill(1) }],
    ] as const) {
      const error = await failure(init(boot(), more));
      assert.equal(error?.code, 'ERR_INIT_REQUEST', what);
    }
    const refused = { code: 'ERR_INIT_REQUEST', status: 'INVALID_ARGUMENT' };
    for (const more of [
      { kmsUri: vault('k').replace('keyName', 'keyNome') },
      { storageUri: 'storage://nowhere' },
      { kmsCredentials: Buffer.from('{"kms":{"token":7},"storage":{}}') },
      { measurementSecret: new Uint8Array(31) },
    ])
      await assert.rejects(async () => init(boot(), more), refused);
    assert.ok(isZero(machine.tpm.pcrs.get(15)!));
    assert.deepEqual(machine.node.steps, []);
  });

  it('a store that has the keys of another cluster is refused before anything is final', async () => {
    const other = 'ab'.repeat(32);
    await storedKeys({ kek: keks.get('k')!, store: bucket, clusterId: other, generation: 1 }).getDek(
      MEASUREMENT_SECRET_ID,
      32,
    );
    const storageUri = 'storage://aws?bucket=abc&region=eu-central-1';
    assert.equal((await failure(init(boot(), { storageUri })))?.code, 'ERR_ENVELOPE_CLUSTER');
    assert.ok(isZero(machine.tpm.pcrs.get(15)!));
  });
});
