import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFile, truncate, writeFile } from 'node:fs/promises';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { Cryptsetup } from '@asterism/disk/cryptsetup';
import { renderKeyToken } from '@asterism/disk/key-token';
import { StateDisk } from '@asterism/disk/state-disk';
import { UnreachableError } from '@asterism/errors/errors';
import type { InstanceMetadata } from '@asterism/metadata/types';
import { atlsClient } from '@asterism/rpc/atls-client';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API as DiskApi } from '@asterism/rpc/gen/disk_pb';
import { type IssueDiskKeysResponseSchema, API as JoinApi } from '@asterism/rpc/gen/join_pb';
import { COMPARED_PCRS, JoinPeers } from '@asterism/rpc/join-peers';
import { StatusError } from '@asterism/rpc/status';
import { type AuditEvent, AuditLog, verifyAuditLog } from '@asterism/runtime/audit-log';
import { FairTurns } from '@asterism/runtime/fair-turns';
import type { ProgramResult } from '@asterism/runtime/program';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { diskKeeper } from './service.ts';
import { type SyncParts, syncDisk } from './sync.ts';

const HOST = '127.0.0.1';
const MEMBER = new Uint8Array(32).fill(0xee);
const limit = () => AbortSignal.timeout(60_000);
/** Another for each name. */
const keyOf = (name: string) => new Uint8Array(createHash('sha256').update(name).digest());

/** The real program; may stop before or after any of its runs. */
class StoppingCryptsetup extends Cryptsetup {
  step: () => void = () => {};
  override async run(args: readonly string[], ...rest: [Uint8Array, AbortSignal?]): Promise<ProgramResult> {
    this.step();
    const result = await super.run(args, ...rest);
    this.step();
    return result;
  }
}

/** Keeps the record of one disk as a JoinService does. */
class Cluster {
  key = '1.0';
  nextKey: string | undefined;
  readonly proofs: string[] = [];
  /** Called when it is asked, and when it is about to answer. */
  step: () => void = () => {};
  change: MessageInitShape<typeof IssueDiskKeysResponseSchema> = {};

  answer(proven: string): MessageInitShape<typeof IssueDiskKeysResponseSchema> {
    this.step();
    if (proven !== '') {
      this.proofs.push(proven);
      if (proven === this.nextKey) {
        this.key = proven;
        this.nextKey = undefined;
      } else if (proven !== this.key) throw new StatusError('PERMISSION_DENIED', 'ERR_DISK_KEY', proven);
    }
    const names = this.nextKey === undefined ? [this.key] : [this.key, this.nextKey];
    const next = this.nextKey === undefined ? {} : { nextKey: keyOf(this.nextKey), nextName: this.nextKey };
    const token = renderKeyToken({ keys: names.map((name) => ({ name })) });
    const answer = { key: keyOf(this.key), name: this.key, ...next, diskKeyToken: token, ...this.change };
    this.step();
    return answer;
  }
}

describe('keeping the key of a disk as the cluster wants it, over mutual aTLS, with real cryptsetup', () => {
  let folder: TemporaryFolder;
  let cluster: Cluster;
  let cryptsetup: StoppingCryptsetup;
  let disk: StateDisk;
  let parts: SyncParts;
  let events: AuditEvent[];
  let peerPcr: Uint8Array;
  let ownPcr: Uint8Array;
  let self: InstanceMetadata;
  let others: string[];
  let ends: (() => Promise<void>)[];
  let port: number;

  const pcrs = (cluster: Uint8Array) =>
    new Map([...COMPARED_PCRS.map((index) => [index, new Uint8Array(32)] as const), [15, cluster] as const]);

  before(async () => {
    folder = await temporaryFolder();
    const device = folder.file('pristine.img');
    await writeFile(device, '');
    await truncate(device, 24 * 1024 * 1024);
    const made = new StateDisk({ device, mappable: false, scratch: folder.file('scratch') });
    await made.format(keyOf('1.0'));
    await made.setInitialized(true);
    await made.setKeyToken({ keys: [{ name: '1.0' }] });
  });
  after(() => folder[Symbol.asyncDispose]());

  const freshDisk = async () => {
    const device = folder.file('disk.img');
    await copyFile(folder.file('pristine.img'), device);
    cryptsetup = new StoppingCryptsetup();
    disk = new StateDisk({ device, mappable: false, scratch: folder.file('scratch'), cryptsetup });
    cluster = new Cluster();
    events = [];
    const audit = { append: async (event: AuditEvent) => void events.push(event) };
    const tpm = { readPcrs: async () => pcrs(ownPcr) };
    const metadata = {
      self: async () => self,
      list: async () => [
        self,
        ...others.map((vpcIp) => ({ ...self, role: 'ControlPlane', name: vpcIp, vpcIp })),
      ],
    };
    const verifier = {
      ...fakeVerifier(),
      verify: async (...args: Parameters<ReturnType<typeof fakeVerifier>['verify']>) => ({
        ...(await fakeVerifier().verify(...args)),
        pcrs: pcrs(peerPcr),
      }),
    };
    const peers = new JoinPeers({
      metadata: metadata as never,
      tpm: tpm as never,
      issuer: fakeIssuer(),
      verifiersFor: () => [verifier],
      port,
      timeoutMs: 10_000,
    });
    parts = { disk, tpm, metadata, peers, audit, log: { info() {} } };
  };

  beforeEach(async () => {
    ends = [];
    peerPcr = MEMBER;
    ownPcr = MEMBER;
    others = [HOST];
    self = {
      name: 'worker-0',
      providerId: 'x',
      role: 'Worker',
      vpcIp: '127.0.0.9',
      secondaryIpRange: '',
      aliasIpRanges: [],
    };
    const server = new AtlsGrpcServer({ issuer: fakeIssuer(), verifiers: [fakeVerifier()] });
    server.addService(JoinApi, {
      issueJoinTicket: async () => ({}),
      issueRejoinTicket: async () => ({}),
      issueDiskKeys: async ({ proven }) => cluster.answer(proven),
    });
    ({ port } = await server.listen(0, HOST));
    ends.push(() => server.stop(0));
    await freshDisk();
  });
  afterEach(async () => {
    for (const end of ends.reverse()) await end();
  });

  const opening = async (...names: string[]) => {
    const opens: string[] = [];
    for (const name of names) if (await disk.testKey(keyOf(name))) opens.push(name);
    return opens;
  };
  const namesInHeader = async () => (await disk.header()).keyToken?.keys.map(({ name }) => name);

  it('changes the key, proves it, says so, and names it in the header', async () => {
    cluster.nextKey = '1.1';
    const { uuid } = await disk.header();
    assert.deepEqual(await syncDisk(parts, limit()), { diskUuid: uuid, keyName: '1.1', changed: true });
    assert.deepEqual(await opening('1.0', '1.1'), ['1.1']);
    assert.deepEqual(await namesInHeader(), ['1.1']);
    assert.equal((await disk.header()).keyslots.length, 1);
    assert.deepEqual([cluster.key, cluster.nextKey, cluster.proofs], ['1.1', undefined, ['1.1']]);
    assert.deepEqual(
      events.map(({ event, from, to }) => [event, from, to]),
      [
        ['disk-key-change', '1.0', '1.1'],
        ['disk-key-changed', '1.0', '1.1'],
      ],
    );
    assert.deepEqual(await syncDisk(parts, limit()), { diskUuid: uuid, keyName: '1.1', changed: false });
    assert.equal(events.length, 2);
  });

  it('stopped at every step, once each, the disk opens with a key of the cluster that its header names, and the next run completes', async () => {
    let steps = 0;
    const count = () => void steps++;
    const watch = (step: () => void) => {
      cryptsetup.step = step;
      cluster.step = step;
    };
    watch(count);
    cluster.nextKey = '1.1';
    await syncDisk(parts, limit());
    const all = steps;
    assert.ok(all > 20, `${all} steps`);
    let inDoubt = 0;
    for (let stop = 1; stop <= all; stop++) {
      await freshDisk();
      cluster.nextKey = '1.1';
      steps = 0;
      watch(() => {
        if (++steps >= stop) throw new UnreachableError('stopped');
      });
      await assert.rejects(syncDisk(parts, limit()), `step ${stop}`);
      watch(() => {});
      const opens = await opening('1.0', '1.1');
      assert.ok(opens.length > 0, `step ${stop}: no key opens the disk`);
      const given = [cluster.key, cluster.nextKey];
      assert.ok(
        opens.some((name) => given.includes(name)),
        `step ${stop}: ${opens} opens, not ${given}`,
      );
      const named = await namesInHeader();
      assert.ok(
        opens.some((name) => named?.includes(name)),
        `step ${stop}: the header names ${named}`,
      );
      if (cluster.key !== opens[0]) inDoubt++;
      const { keyName } = await syncDisk(parts, limit());
      assert.equal(keyName, '1.1');
      assert.deepEqual(await opening('1.0', '1.1'), ['1.1'], `step ${stop}`);
      assert.deepEqual([cluster.key, cluster.nextKey], ['1.1', undefined]);
      assert.deepEqual(await namesInHeader(), ['1.1']);
    }
    assert.ok(inDoubt > 0, 'at no step had the disk another key than the one that was recorded');
  });

  it('goes to a later generation, and from change to change', async () => {
    for (const name of ['1.1', '1.2', '2.0', '2.1']) {
      cluster.nextKey = name;
      assert.equal((await syncDisk(parts, limit())).keyName, name);
      assert.deepEqual(await opening('1.0', '1.1', '1.2', '2.0', '2.1'), [name]);
    }
  });

  it('writes the token anew where the cluster says something else, and removes what other keys are left', async () => {
    await disk.setKeyToken({ keys: [{ name: '3.0' }] });
    assert.equal((await syncDisk(parts, limit())).changed, true);
    assert.deepEqual(await namesInHeader(), ['1.0']);
    await cryptsetup.must(
      ['luksAddKey', '--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000', '--key-file', '-'].concat([
        '--keyfile-size',
        '32',
        disk.device,
        '-',
      ]),
      Buffer.concat([keyOf('1.0'), keyOf('left')]),
    );
    assert.deepEqual(await opening('1.0', 'left'), ['1.0', 'left']);
    assert.equal((await syncDisk(parts, limit())).changed, true);
    assert.deepEqual(await opening('1.0', 'left'), ['1.0']);
  });

  it('changes nothing where no key of the cluster opens the disk, not even what the header says', async () => {
    for (const [key, nextKey] of [
      ['5.0', undefined],
      ['5.0', '5.1'],
    ] as const) {
      Object.assign(cluster, { key, nextKey });
      await assert.rejects(syncDisk(parts, limit()), { code: 'ERR_DISK_WRONG_KEY' });
      assert.deepEqual(await namesInHeader(), ['1.0']);
      assert.deepEqual(await opening('1.0'), ['1.0']);
      assert.deepEqual([cluster.proofs, events], [[], []]);
    }
  });

  it('refuses answers that contradict themselves, and changes nothing', async () => {
    const key = keyOf('1.0');
    const token = (...names: string[]) => renderKeyToken({ keys: names.map((name) => ({ name })) });
    for (const change of [
      { key: new Uint8Array() },
      { key: new Uint8Array(31) },
      { name: '1.1' },
      { name: '' },
      { nextKey: keyOf('1.1') },
      { nextName: '1.1', diskKeyToken: token('1.0', '1.1') },
      { nextName: '1.1', nextKey: key, diskKeyToken: token('1.0', '1.1') },
      { nextName: '1.1', nextKey: keyOf('1.1') },
      { diskKeyToken: new Uint8Array() },
      { diskKeyToken: new Uint8Array(10_000) },
      { diskKeyToken: Buffer.from('{"type":"luks2-keyring","keyslots":[],"key_description":"x"}') },
    ]) {
      cluster.change = change;
      await assert.rejects(syncDisk(parts, limit()), { code: 'ERR_DISK_KEYS' }, JSON.stringify(change));
      assert.deepEqual(await opening('1.0', '1.1'), ['1.0']);
      assert.deepEqual(await namesInHeader(), ['1.0']);
    }
  });

  it('takes no keys of another cluster, and has none to keep before it is a member', async () => {
    cluster.nextKey = '1.1';
    peerPcr = new Uint8Array(32).fill(1);
    await assert.rejects(syncDisk(parts, limit()), { code: 'ERR_PEER_CLUSTER' });
    peerPcr = MEMBER;
    ownPcr = new Uint8Array(32);
    await assert.rejects(syncDisk(parts, limit()), { code: 'ERR_NO_MEMBER' });
    ownPcr = MEMBER;
    await disk.setInitialized(false);
    await assert.rejects(syncDisk(parts, limit()), { code: 'ERR_NO_MEMBER' });
    assert.deepEqual(await opening('1.0', '1.1'), ['1.0']);
  });

  it('asks one control plane after the other, its own last; without one that answers it says so', async () => {
    cluster.nextKey = '1.1';
    others = ['127.0.0.7', '127.0.0.8'];
    await assert.rejects(syncDisk(parts, limit()), UnreachableError);
    others = ['127.0.0.7', HOST];
    assert.equal((await syncDisk(parts, limit())).keyName, '1.1');
    others = [];
    await assert.rejects(syncDisk(parts, limit()), UnreachableError);
    self = { ...self, role: 'ControlPlane', vpcIp: HOST };
    assert.equal((await syncDisk(parts, limit())).keyName, '1.1');
  });

  it('changes nothing that cannot be recorded', async () => {
    cluster.nextKey = '1.1';
    const broken = { append: () => Promise.reject(new Error('the disk is full')) };
    await assert.rejects(syncDisk({ ...parts, audit: broken }, limit()), { message: 'the disk is full' });
    assert.deepEqual(await opening('1.0', '1.1'), ['1.0']);
  });

  it('is called over aTLS by anybody, one at a time; callers that ask too often wait', async () => {
    cluster.nextKey = '1.1';
    const audit = await AuditLog.open(folder.file('audit.log'));
    const server = new AtlsGrpcServer({ issuer: fakeIssuer() });
    const limiter = new RateLimiter({ burst: 3, perSecond: 0.001 });
    server.addService(DiskApi, diskKeeper({ ...parts, audit, limiter, turns: new FairTurns() }));
    const { port } = await server.listen(0, HOST);
    ends.push(
      () => audit.close(),
      () => server.stop(0),
    );
    const clients = [1, 2, 3, 4].map(() =>
      atlsClient(DiskApi, { host: HOST, port, verifiers: [fakeVerifier()] }),
    );
    ends.push(async () => {
      for (const client of clients) client.close();
    });
    await Promise.all(clients.map((client) => client.peer()));
    const results = await Promise.allSettled(clients.slice(0, 2).map((client) => client.syncDisk({})));
    const { uuid } = await disk.header();
    const [first, second] = results.sort(({ status }) => (status === 'fulfilled' ? -1 : 1));
    assert.ok(first?.status === 'fulfilled' && second?.status === 'rejected');
    assert.deepEqual([first.value.diskUuid, first.value.keyName, first.value.changed], [uuid, '1.1', true]);
    assert.equal(second.reason.code, 'ERR_BUSY');
    assert.equal((await clients[2]!.syncDisk({})).changed, false);
    await assert.rejects(clients[3]!.syncDisk({}), { code: 'ERR_RATE_LIMIT' });
    assert.equal((await verifyAuditLog(folder.file('audit.log'))).lines, 2);
  });
});
