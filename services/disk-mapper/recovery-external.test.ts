// Recovery by an external KMS: the wrapped keys are in the header of a real LUKS2 disk. KEKs and stores are in memory.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFile, readFile, truncate, writeFile } from 'node:fs/promises';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { isZero } from '@asterism/bytes/bytes';
import { clusterId, MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import type { DiskKeyToken } from '@asterism/disk/key-token';
import { stateLayout } from '@asterism/disk/layout';
import { writeNodeState } from '@asterism/disk/node-state';
import { StateDisk } from '@asterism/disk/state-disk';
import { KmsUnavailableError } from '@asterism/kms/errors';
import { MemoryKek, MemoryStore } from '@asterism/kms/memory.fixture';
import { storedKeys } from '@asterism/kms/stored-keys';
import { parseKmsUri } from '@asterism/kms/uri';
import type { StatusError } from '@asterism/rpc/status';
import { clusterIdPcr } from '@asterism/runtime/machine-tpm';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { MemberAudit } from './audit.ts';
import { memoryTpm } from './disk-mapper.fixture.ts';
import { dekIdOf } from './header-store.ts';
import { type RecoveryServiceOptions, recoveryService } from './service.ts';
import { PlainVolume } from './state-volume.ts';
import { Unlocker } from './unlock.ts';

const SALT = new Uint8Array(32).fill(2);
const OWNER = '10.0.0.9';
const STRANGER = '10.0.0.66';
const secret = new Uint8Array(randomBytes(32));
const cluster = Buffer.from(clusterId(secret, SALT)).toString('hex');
const uri = (more = '', id = cluster) =>
  `kms://vault?address=https%3A%2F%2Fbao.example&keyName=k&clusterID=${id}${more}`;
const BUCKET = 'storage://aws?bucket=abc&region=eu-central-1';

describe('recovery by an external KMS', () => {
  let member: TemporaryFolder;
  let folder: TemporaryFolder;
  let uuid: string;
  /** The cluster's store, and the KEKs by generation. */
  let store: MemoryStore;
  let keks: MemoryKek[];
  let tpm: ReturnType<typeof memoryTpm>;
  let disk: StateDisk;
  let token: DiskKeyToken;
  let options: RecoveryServiceOptions;
  let recovered: number;
  let opened: string[];

  const homeOf = (from: MemoryStore, generation = 1, id = cluster) =>
    storedKeys({ kek: keks[generation]!, store: from, clusterId: id, generation });
  const diskAt = (device: string) =>
    new StateDisk({ device, mappable: false, scratch: member.file('scratch') });

  before(async () => {
    member = await temporaryFolder();
    keks = ['unused', 'one', 'two'].map((name) => new MemoryKek(name));
    store = new MemoryStore();
    const device = member.file('disk.img');
    await writeFile(device, '');
    await truncate(device, 24 * 1024 * 1024);
    const temporary = Uint8Array.from(randomBytes(32));
    ({ uuid } = await diskAt(device).format(temporary));
    const home = homeOf(store);
    await home.importDek(MEASUREMENT_SECRET_ID, secret);
    const id = dekIdOf(uuid, '1.0');
    await diskAt(device).rekey(temporary, await home.getDek(id, 32));
    token = {
      keys: [{ name: '1.0', envelope: await home.wrapped(id) }],
      measurementSecret: await home.wrapped(MEASUREMENT_SECRET_ID),
    };
    await diskAt(device).setKeyToken(token);
    await diskAt(device).setInitialized(true);
  });
  after(() => member[Symbol.asyncDispose]());

  beforeEach(async () => {
    folder = await temporaryFolder();
    await copyFile(member.file('disk.img'), folder.file('disk.img'));
    disk = diskAt(folder.file('disk.img'));
    const layout = stateLayout(folder.file('state'));
    await writeNodeState(layout.nodeState, { role: 'ControlPlane', measurementSalt: SALT });
    tpm = memoryTpm();
    recovered = 0;
    opened = [];
    for (const kek of keks) kek.before = async () => {};
    store.before = async (what) => assert.equal(what, 'get', 'a recovery changes nothing in a store');
    const audit = new MemberAudit(`${layout.root}/asterism/audit/disk-mapper.log`);
    options = {
      diskUuid: uuid,
      keyToken: async () => (await disk.header()).keyToken,
      async openHome({ kmsUri, store: given }) {
        const reference = parseKmsUri(kmsUri);
        assert.ok(reference.kind === 'external' && given !== undefined);
        const { generation, clusterId: id = '' } = reference;
        return storedKeys({
          ...{ kek: keks[generation]!, store: given, clusterId: id, generation },
          retry: { tries: 2, deadlineMs: 2000 },
        });
      },
      async openStore({ storageUri }) {
        opened.push(storageUri);
        return store;
      },
      unlocker: new Unlocker({
        ...{ disk, tpm, layout, audit, diskUuid: uuid, volume: new PlainVolume(layout.root) },
        clusterId: async (...both) => clusterId(...both),
      }),
      audit,
      log: { info() {} },
      onRecovered: () => recovered++,
    };
  });
  afterEach(() => folder[Symbol.asyncDispose]());

  const service = () => {
    const { recover } = recoveryService(options);
    return (kmsUri = uri(), storageUri = 'storage://kubernetes', address = OWNER) =>
      recover(
        { kmsUri, storageUri, kmsCredentials: new Uint8Array() } as never,
        { peer: { address, verdict: undefined }, signal: AbortSignal.timeout(60_000) } as never,
      );
  };
  const refusal = async (what: Promise<unknown>) => {
    const error = (await what.then(
      () => assert.fail('it was granted'),
      (reason) => reason,
    )) as StatusError;
    assert.ok(isZero(tpm.pcr));
    assert.equal(recovered, 0);
    return error;
  };

  it('needs the header and the KMS, and no store', async () => {
    await service()();
    assert.deepEqual(tpm.pcr, clusterIdPcr(clusterId(secret, SALT)));
    assert.deepEqual([recovered, opened.length], [1, 0]);
  });

  it('finds the key while it is being changed, whichever of the two opens the disk', async () => {
    const home = homeOf(new MemoryStore());
    await home.getDek(dekIdOf(uuid, '1.1'), 32);
    const next = { name: '1.1', envelope: await home.wrapped(dekIdOf(uuid, '1.1')) };
    for (const keys of [
      [...token.keys, next],
      [next, ...token.keys],
    ]) {
      await disk.setKeyToken({ ...token, keys });
      const both = await service()().then(
        () => 'open',
        (error) => error.code,
      );
      assert.ok(both === 'open' || both === 'ERR_DISK_UNLOCKED', both);
    }
    assert.equal(recovered, 1);
  });

  it('a header whose envelopes are swapped, of another disk, cluster or generation opens nothing', async () => {
    const other = '99999999-0000-4000-8000-000000000000';
    const foreign = homeOf(new MemoryStore());
    await foreign.getDek(dekIdOf(other, '1.0'), 32);
    const elsewhere = homeOf(new MemoryStore(), 1, 'ab'.repeat(32));
    await elsewhere.getDek(dekIdOf(uuid, '1.0'), 32);
    const [own] = token.keys;
    const hostile: [string, DiskKeyToken, string][] = [
      [
        'swapped',
        { keys: [{ name: '1.0', envelope: token.measurementSecret }], measurementSecret: own!.envelope },
        'ERR_ENVELOPE_ID',
      ],
      [
        'another disk',
        { ...token, keys: [{ name: '1.0', envelope: await foreign.wrapped(dekIdOf(other, '1.0')) }] },
        'ERR_ENVELOPE_ID',
      ],
      [
        'another cluster',
        { ...token, keys: [{ name: '1.0', envelope: await elsewhere.wrapped(dekIdOf(uuid, '1.0')) }] },
        'ERR_ENVELOPE_CLUSTER',
      ],
      ['another name', { ...token, keys: [{ name: '1.7', envelope: own!.envelope }] }, 'ERR_ENVELOPE_ID'],
      ['no envelope', { ...token, keys: [{ name: '1.0' }] }, 'ERR_STORE_NOT_FOUND'],
      ['no secret', { keys: token.keys }, 'ERR_STORE_NOT_FOUND'],
    ];
    for (const [what, tampered, code] of hostile) {
      await disk.setKeyToken(tampered);
      assert.equal((await refusal(service()())).code, code, what);
    }
    await disk.setKeyToken(token);
    assert.equal((await refusal(service()(uri('&generation=2')))).code, 'ERR_ENVELOPE_GENERATION');
    assert.equal((await refusal(service()(uri('', 'ab'.repeat(32))))).code, 'ERR_ENVELOPE_CLUSTER');
    await service()();
  });

  it('an envelope whose ciphertext was changed, or that another KEK wrapped, opens nothing', async () => {
    const [own] = token.keys;
    const envelope = JSON.parse(Buffer.from(own!.envelope!).toString());
    const turned = Buffer.from(envelope.ciphertext, 'base64');
    turned[0]! ^= 1;
    const bytes = Buffer.from(JSON.stringify({ ...envelope, ciphertext: turned.toString('base64') }));
    await disk.setKeyToken({ ...token, keys: [{ name: '1.0', envelope: new Uint8Array(bytes) }] });
    assert.equal((await refusal(service()())).code, 'ERR_ENVELOPE_FORGED');
    await disk.setKeyToken(token);
    const kek = keks[1]!;
    keks[1] = new MemoryKek('a stranger');
    assert.equal((await refusal(service()())).code, 'ERR_KMS_UNWRAP');
    keks[1] = kek;
  });

  it("a KMS that hands out the caller's own key is found out by the disk", async () => {
    const forged = new MemoryStore();
    const home = homeOf(forged);
    for (const id of [dekIdOf(uuid, '1.0'), MEASUREMENT_SECRET_ID]) await home.getDek(id, 32);
    await disk.setKeyToken({
      keys: [{ name: '1.0', envelope: await home.wrapped(dekIdOf(uuid, '1.0')) }],
      measurementSecret: await home.wrapped(MEASUREMENT_SECRET_ID),
    });
    const error = await refusal(service()());
    assert.equal(error.code, 'ERR_RECOVERY_KEY');
    assert.match(error.message, /this KMS gives .* does not open it/);
  });

  it('a KMS that is down is told from one that refuses: trying again helps, and no store is asked', async () => {
    keks[1]!.before = async () => {
      throw new KmsUnavailableError('ERR_KMS_UNAVAILABLE', 'nobody there');
    };
    const error = await refusal(service()(uri(), BUCKET));
    assert.ok(error instanceof KmsUnavailableError);
    assert.deepEqual(opened, []);
    keks[1]!.before = async () => {};
    await service()();
  });

  it('a damaged header is made up for by a store that needs no Kubernetes, from which it only reads', async () => {
    await disk.setKeyToken({ keys: [{ name: '1.0' }] });
    await refusal(service()());
    assert.deepEqual(opened, []);
    await service()(uri(), BUCKET);
    assert.deepEqual(opened, [BUCKET]);
    assert.equal(recovered, 1);
  });

  it('where no store has the key none is made', async () => {
    const whole = store;
    store = new MemoryStore();
    store.before = whole.before;
    await disk.setKeyToken({ keys: [{ name: '1.0' }] });
    const error = await refusal(service()(uri(), BUCKET));
    assert.equal(error.code, 'ERR_STORE_NOT_FOUND');
    assert.match(error.message, /no wrapped key of this disk/);
    assert.equal(store.objects.size, 0);
    store = whole;
  });

  it('the slow KMS of one caller keeps the owner out for no moment', async () => {
    let release = () => {};
    const waiting = new Promise<void>((resolve) => {
      release = resolve;
    });
    const honest = options.openHome;
    options = {
      ...options,
      async openHome(choice) {
        if (choice.kmsUri.includes('generation=2')) await waiting;
        return honest(choice);
      },
    };
    const recover = service();
    const slow = Array.from({ length: 20 }, (_, i) =>
      recover(uri('&generation=2'), '', `10.0.1.${i}`).catch((error) => error.code),
    );
    await sleep(20);
    await recover();
    assert.equal(recovered, 1);
    release();
    for (const code of await Promise.all(slow)) assert.match(String(code), /^ERR_/);
    assert.equal(recovered, 1);
  });

  it('one caller has one call at a time', async () => {
    const recover = service();
    const both = await Promise.allSettled(
      Array.from({ length: 5 }, () => recover(uri('&generation=2'), '', STRANGER)),
    );
    const codes = both.map((one) => (one.status === 'rejected' ? one.reason.code : 'granted'));
    assert.deepEqual(codes.sort(), [...Array(4).fill('ERR_BUSY'), 'ERR_ENVELOPE_GENERATION']);
    await recover();
  });

  it('who makes the node ask a KMS in vain again and again has to wait; the owner has not', async () => {
    const recover = service();
    for (let attempt = 1; attempt <= 9; attempt++) await refusal(recover(uri('&generation=2'), '', STRANGER));
    assert.equal((await refusal(recover(uri(), '', STRANGER))).code, 'ERR_RECOVERY_THROTTLED');
    await recover();
    assert.equal(recovered, 1);
  });

  it('connects to no plain http, which only this machine itself would offer', async () => {
    const { recover } = recoveryService(options);
    const plain = encodeURIComponent('http://127.0.0.1:9104');
    const kms = `kms://vault?address=${plain}&keyName=k&clusterID=${'ab'.repeat(32)}`;
    const bucket = `storage://aws?bucket=keys&region=eu-central-1&endpoint=${plain}`;
    for (const [kmsUri, storageUri] of [
      [kms, BUCKET],
      [uri(), bucket],
    ])
      await assert.rejects(
        async () =>
          recover(
            { kmsUri, storageUri, kmsCredentials: new Uint8Array() } as never,
            { peer: { address: OWNER }, signal: AbortSignal.timeout(60_000) } as never,
          ),
        { code: 'ERR_RECOVERY_REQUEST' },
      );
  });

  it('what a caller gave is in neither answer nor log nor audit', async () => {
    const said: unknown[] = [];
    options = { ...options, log: { info: (fields) => said.push(fields) } };
    const { recover } = recoveryService(options);
    const give = (kmsUri: string, credentials: string) =>
      recover(
        { kmsUri, storageUri: BUCKET, kmsCredentials: Buffer.from(credentials) } as never,
        { peer: { address: OWNER }, signal: AbortSignal.timeout(60_000) } as never,
      ).then(
        () => assert.fail(),
        (error) => error,
      );
    const errors = [
      await give(uri('&generation=2'), '{"kms":{"token":"hunter22"},"storage":{"accessKey":"hunter22"}}'),
      await give(uri('&token=hunter22&nonsense=hunter22'), '{"kms":{},"storage":{}}'),
      await give(uri(), '{"kms":{"token":["hunter22"]},"storage":{}}'),
      await give(uri(), '{"kms":hunter22'),
    ];
    const { inspect } = await import('node:util');
    const audit = await readFile(`${folder.file('state')}/asterism/audit/disk-mapper.log`, 'utf8').catch(
      () => '',
    );
    assert.doesNotMatch(inspect([errors, said], { depth: 12, showHidden: true }) + audit, /hunter22/);
  });
});
