import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { appendFile, copyFile, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { isZero } from '@asterism/bytes/bytes';
import { clusterId, deriveKey } from '@asterism/crypto/derive';
import { type StateLayout, stateLayout } from '@asterism/disk/layout';
import { writeNodeState } from '@asterism/disk/node-state';
import { StateDisk } from '@asterism/disk/state-disk';
import { openStore } from '@asterism/kms/open';
import { atlsClient } from '@asterism/rpc/atls-client';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/recover_pb';
import { verifyAuditLog } from '@asterism/runtime/audit-log';
import { clusterIdPcr } from '@asterism/runtime/machine-tpm';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { MemberAudit } from './audit.ts';
import { kmsUri, MASTER_SALT, memoryTpm, openHome } from './disk-mapper.fixture.ts';
import { serveRecovery } from './recovery-server.ts';
import { recoveryService } from './service.ts';
import { PlainVolume } from './state-volume.ts';
import { Unlocker } from './unlock.ts';

const quiet = { info() {}, warn() {} };
const measurementSalt = new Uint8Array(32).fill(2);
const master = randomBytes(32);
const OWNER = '10.0.0.9';
const ATTACKER = '10.0.0.66';

describe('recovery', () => {
  let folder: TemporaryFolder;
  let layout: StateLayout;
  let tpm: ReturnType<typeof memoryTpm>;
  let options: Omit<Parameters<typeof recoveryService>[0], 'onRecovered'> & { log: typeof quiet };
  let auditPath: string;

  let member: TemporaryFolder;
  let diskUuid: string;

  const diskAt = (device: string) =>
    new StateDisk({ device, mappable: false, scratch: member.file('scratch') });

  before(async () => {
    member = await temporaryFolder();
    const device = member.file('disk.img');
    await writeFile(device, '');
    await truncate(device, 24 * 1024 * 1024);
    const temporary = Uint8Array.from(randomBytes(32));
    ({ uuid: diskUuid } = await diskAt(device).format(temporary));
    await diskAt(device).rekey(temporary, deriveKey(master, MASTER_SALT, `key-${diskUuid}`, 32));
    await diskAt(device).setInitialized(true);
  });
  after(() => member[Symbol.asyncDispose]());

  beforeEach(async () => {
    folder = await temporaryFolder();
    const device = folder.file('disk.img');
    await copyFile(member.file('disk.img'), device);
    const disk = diskAt(device);
    layout = stateLayout(folder.file('state'));
    await writeNodeState(layout.nodeState, { role: 'ControlPlane', measurementSalt });
    tpm = memoryTpm();
    auditPath = `${layout.root}/asterism/audit/disk-mapper.log`;
    const audit = new MemberAudit(auditPath);
    const unlocker = new Unlocker({
      disk,
      tpm,
      layout,
      diskUuid,
      audit,
      volume: new PlainVolume(layout.root),
      clusterId: async (secret, salt) => clusterId(secret, salt),
    });
    const keyToken = async () => (await disk.header()).keyToken;
    options = { diskUuid, keyToken, openHome, openStore, unlocker, audit, log: quiet };
  });
  afterEach(() => folder[Symbol.asyncDispose]());

  const audited = async (): Promise<Record<string, unknown>[]> =>
    (await readFile(auditPath, 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));

  describe('by callers of several addresses', () => {
    let recovered: number;
    let recover: (address: string, uri: string) => Promise<unknown>;

    beforeEach(() => {
      recovered = 0;
      const service = recoveryService({ ...options, onRecovered: () => recovered++ });
      recover = (address, uri) =>
        service.recover(
          { kmsUri: uri, storageUri: '', kmsCredentials: new Uint8Array() } as never,
          { peer: { address, verdict: undefined }, signal: AbortSignal.timeout(60_000) } as never,
        );
    });

    it('the tenth wrong secret of one is not tried, and the owner gets in at once all the same', async () => {
      for (let attempt = 1; attempt <= 9; attempt++)
        await assert.rejects(recover(ATTACKER, kmsUri(randomBytes(32))), { code: 'ERR_RECOVERY_KEY' });
      for (const uri of [kmsUri(randomBytes(32)), kmsUri(master), 'kms://nonsense'])
        await assert.rejects(recover(ATTACKER, uri), {
          code: 'ERR_RECOVERY_THROTTLED',
          status: 'RESOURCE_EXHAUSTED',
        });
      assert.ok(isZero(tpm.pcr));
      await recover(OWNER, kmsUri(master));
      assert.equal(recovered, 1);
    });

    it('the owner gets in while others poll without a pause', async () => {
      let stopped = false;
      const attackers = Array.from({ length: 5 }, async (_, at) => {
        while (!stopped) {
          await recover(`10.0.1.${at}`, kmsUri(randomBytes(32))).catch(() => {});
          await new Promise((resolve) => setImmediate(resolve));
        }
      });
      try {
        await recover(OWNER, kmsUri(master));
      } finally {
        stopped = true;
        await Promise.all(attackers);
      }
      assert.equal(recovered, 1);
    });

    it('malformed requests count for nobody', async () => {
      for (let attempt = 1; attempt <= 30; attempt++)
        await assert.rejects(recover(OWNER, 'kms://nonsense'), { code: 'ERR_RECOVERY_REQUEST' });
      await recover(OWNER, kmsUri(master));
    });

    it('one at a time: who comes second finds the disk open', async () => {
      const both = await Promise.allSettled([
        recover(OWNER, kmsUri(master)),
        recover('10.0.0.2', kmsUri(master)),
      ]);
      assert.deepEqual(
        both.map((answer) => answer.status === 'rejected' && answer.reason.code),
        [false, 'ERR_DISK_UNLOCKED'],
      );
      assert.equal(recovered, 1);
    });
  });

  describe('in the audit log', () => {
    const by = (address: string) => ({ event: 'recovery' as const, address });

    it('refusals are kept until the disk is open, then written with the grant before the answer', async () => {
      let recorded = 0;
      const onRecovered = (): void => {
        recorded = readFileSync(auditPath, 'utf8').trim().split('\n').length;
      };
      const service = recoveryService({ ...options, onRecovered });
      const context = (address: string) => ({ peer: { address, verdict: undefined } }) as never;
      const call = (address: string, uri: string) =>
        service.recover(
          { kmsUri: uri, storageUri: '', kmsCredentials: new Uint8Array() } as never,
          context(address),
        );
      await assert.rejects(call(ATTACKER, kmsUri(randomBytes(32))));
      await assert.rejects(call(ATTACKER, 'kms://nonsense'));
      for (let attempt = 0; attempt < 3; attempt++) await assert.rejects(call('10.0.0.67', ''));
      await assert.rejects(audited(), { code: 'ENOENT' });
      await call(OWNER, kmsUri(master));
      const lines = (await audited()).map(({ event, outcome, address, reason, times }) => [
        ...[event, outcome, address],
        ...(reason === undefined ? [] : [reason, times]),
      ]);
      assert.deepEqual(lines, [
        ['recovery', 'refused', ATTACKER, 'ERR_RECOVERY_KEY', 1],
        ['recovery', 'refused', ATTACKER, 'ERR_RECOVERY_REQUEST', 2],
        ['recovery', 'refused', '10.0.0.67', 'ERR_RECOVERY_REQUEST', 1],
        ['recovery', 'refused', '10.0.0.67', 'ERR_RECOVERY_REQUEST', 2],
        ['recovery', 'granted', OWNER],
      ]);
      assert.equal(recorded, 5);
      assert.equal((await verifyAuditLog(auditPath)).lines, 5);
      assert.doesNotMatch(await readFile(auditPath, 'utf8'), new RegExp(master.toString('hex')));
    });

    it('what cannot be recorded is not granted: PCR 15 stays as it is', async () => {
      // A file where the folder of the log should be.
      await writeFile(dirname(auditPath), '');
      const service = recoveryService({ ...options, onRecovered: () => assert.fail('was granted') });
      await assert.rejects(
        service.recover(
          { kmsUri: kmsUri(master), storageUri: '' } as never,
          { peer: { address: OWNER } } as never,
        ),
      );
      assert.ok(isZero(tpm.pcr));
    });

    it('refusals are not lost where the grant cannot be written, and are bounded', async () => {
      const audit = new MemberAudit(auditPath);
      for (let at = 0; at < 1200; at++) audit.refused(by(`10.1.${at >> 8}.${at & 255}`), 'ERR_RECOVERY_KEY');
      await writeFile(dirname(auditPath), '');
      await assert.rejects(audit.granted(by(OWNER), options.diskUuid));
      await rm(dirname(auditPath));
      await audit.granted(by(OWNER), options.diskUuid);
      const lines = await audited();
      assert.equal(lines.length, 1002);
      assert.partialDeepStrictEqual(lines.slice(-2), [
        { event: 'refusals-not-kept', count: 200 },
        { event: 'recovery', outcome: 'granted', address: OWNER, diskUuid: options.diskUuid },
      ]);
    });

    it('a log that was changed is kept beside a new one, which says so: the disk is opened all the same', async () => {
      const audit = new MemberAudit(auditPath);
      await audit.granted(by(OWNER), 'first');
      const [line] = await audited();
      await writeFile(auditPath, `${JSON.stringify({ ...line, address: ATTACKER })}\n`);
      await appendFile(auditPath, '{}\n');
      await audit.granted({ event: 'rejoin', address: OWNER }, 'second');
      const [began, granted] = await audited();
      assert.partialDeepStrictEqual(granted, { event: 'rejoin', outcome: 'granted', diskUuid: 'second' });
      assert.equal(began!.event, 'audit-log-broken');
      assert.ok((await readdir(dirname(auditPath))).includes(String(began!.keptAs)));
    });
  });

  describe('over aTLS', () => {
    let serving: Promise<void>;
    let stop: AbortController;
    let client: ReturnType<typeof connect>;

    const connect = (port: number) =>
      atlsClient(API, { host: '127.0.0.1', port, verifiers: [fakeVerifier()], callTimeoutMs: 20_000 });

    /** Serves on a port, 0 for any. @returns the port, once it is served */
    function serve(port: number): Promise<number> {
      stop = new AbortController();
      return new Promise((resolve) => {
        const log = {
          ...options.log,
          info: (fields: object) => 'port' in fields && resolve(Number(fields.port)),
        };
        const makeServer = () => new AtlsGrpcServer({ issuer: fakeIssuer() });
        serving = serveRecovery(makeServer, { ...options, log: { ...quiet, ...log } }, stop.signal, port);
        serving.catch(() => {});
      });
    }

    afterEach(async () => {
      client?.close();
      stop.abort();
      await serving.catch(() => {});
    });

    it("answers OK when the key opened the disk and PCR 15 is the cluster's", async () => {
      client = connect(await serve(0));
      await client.recover({ kmsUri: kmsUri(master), storageUri: 'storage://no-store' });
      await serving;
      const secret = deriveKey(master, MASTER_SALT, 'key-measurementSecret', 32);
      assert.deepEqual(tpm.pcr, clusterIdPcr(clusterId(secret, measurementSalt)));
    });

    it('tells a wrong master secret apart, changes nothing and stays up for the right one', async () => {
      client = connect(await serve(0));
      await assert.rejects(client.recover({ kmsUri: kmsUri(randomBytes(32)) }), {
        code: 'ERR_RECOVERY_KEY',
        status: 'INVALID_ARGUMENT',
      });
      assert.ok(isZero(tpm.pcr));
      await client.recover({ kmsUri: kmsUri(master) });
      await serving;
      assert.ok(!isZero(tpm.pcr));
    });

    it('refuses malformed URIs', async () => {
      client = connect(await serve(0));
      for (const uri of ['', 'kms://nonsense', 'x'.repeat(9000)]) {
        await assert.rejects(client.recover({ kmsUri: uri }), {
          status: 'INVALID_ARGUMENT',
          code: 'ERR_RECOVERY_REQUEST',
        });
      }
    });

    it('throttles guessing: the tenth wrong secret is not tried', async () => {
      client = connect(await serve(0));
      for (let attempt = 1; attempt <= 9; attempt++) {
        await assert.rejects(client.recover({ kmsUri: kmsUri(randomBytes(32)) }), {
          code: 'ERR_RECOVERY_KEY',
        });
      }
      await assert.rejects(client.recover({ kmsUri: kmsUri(master) }), {
        code: 'ERR_RECOVERY_THROTTLED',
        status: 'RESOURCE_EXHAUSTED',
      });
      assert.ok(isZero(tpm.pcr));
    });

    it('is served once a port that was taken is free', async () => {
      const other = createServer();
      const port = await new Promise<number>((resolve) =>
        other.listen(0, () => resolve((other.address() as { port: number }).port)),
      );
      const warned = new Promise<void>((resolve) => {
        options = { ...options, log: { ...quiet, warn: () => resolve() } };
      });
      const served = serve(port);
      await warned;
      other.close();
      client = connect(await served);
      await client.recover({ kmsUri: kmsUri(master) });
      await serving;
    });

    it('gives its port back at the signal, also while it waits for it', async () => {
      const other = createServer();
      const port = await new Promise<number>((resolve) =>
        other.listen(0, () => resolve((other.address() as { port: number }).port)),
      );
      void serve(port);
      stop.abort(new Error('SIGTERM'));
      await assert.rejects(serving, { message: 'SIGTERM' });
      other.close();
      await serve(0);
      stop.abort(new Error('SIGTERM'));
      await assert.rejects(serving, { message: 'SIGTERM' });
    });
  });
});
