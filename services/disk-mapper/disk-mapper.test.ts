import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { access, mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { isZero } from '@asterism/bytes/bytes';
import { clusterId, deriveKey } from '@asterism/crypto/derive';
import { stateLayout } from '@asterism/disk/layout';
import { writeNodeState } from '@asterism/disk/node-state';
import { StateDisk } from '@asterism/disk/state-disk';
import { ParseError } from '@asterism/errors/errors';
import type { KeyManager } from '@asterism/kms/types';
import { atlsClient } from '@asterism/rpc/atls-client';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/recover_pb';
import { clusterIdPcr, type MachineTpm } from '@asterism/runtime/machine-tpm';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { type PrepareOptions, prepareStateDisk } from './prepare.ts';
import { firstGood } from './race.ts';
import { serveRecovery } from './recovery-server.ts';
import { PlainVolume } from './state-volume.ts';
import { Unlocker } from './unlock.ts';

const quiet = { info() {} };
const SALT = new Uint8Array(32).fill(1);
const measurementSalt = new Uint8Array(32).fill(2);

function memoryTpm(): MachineTpm & { pcr: Uint8Array } {
  return {
    pcr: new Uint8Array(32),
    async readPcrs() {
      return new Map([[15, this.pcr]]);
    },
    async extendClusterId(id) {
      const event = createHash('sha256').update(id).digest();
      this.pcr = new Uint8Array(createHash('sha256').update(this.pcr).update(event).digest());
    },
    attestationKeyId: async () => '',
  };
}

async function openKms(uri: string): Promise<KeyManager> {
  const match = /^kms:\/\/cluster-kms\?key=([0-9a-f]{64})$/.exec(uri);
  if (match === null) throw new ParseError('not a KMS URI of this test');
  const master = Uint8Array.from(Buffer.from(match[1]!, 'hex'));
  return { getDek: async (id, length) => deriveKey(master, SALT, id, length), close: async () => {} };
}

describe('disk-mapper', () => {
  let folder: string;
  let disk: StateDisk;
  let tpm: ReturnType<typeof memoryTpm>;
  let unlocked: string[];
  let options: PrepareOptions;

  beforeEach(async () => {
    folder = await mkdtemp(`${tmpdir()}/asterism-mapper-`);
    const device = `${folder}/disk.img`;
    await writeFile(device, '');
    await truncate(device, 32 * 1024 * 1024);
    disk = new StateDisk({ device, mappable: false, scratch: `${folder}/scratch` });
    tpm = memoryTpm();
    unlocked = [];
    options = {
      disk,
      tpm,
      volume: new PlainVolume(`${folder}/state`),
      temporaryKeyFile: `${folder}/state.key`,
      log: quiet,
      unlock: async (uuid) => {
        unlocked.push(uuid);
      },
    };
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const temporaryKey = async (): Promise<Uint8Array> =>
    Uint8Array.from(await readFile(`${folder}/state.key`));

  describe('prepare', () => {
    it('formats a blank disk and leaves its passphrase, mode 0400', async () => {
      assert.equal(await prepareStateDisk(options), 'formatted');
      assert.equal(await disk.testKey(await temporaryKey()), true);
      assert.equal((await disk.header()).initialized, false);
    });

    it('keeps what this boot has formatted, formats anew what an earlier boot has', async () => {
      await prepareStateDisk(options);
      const { uuid } = await disk.header();
      assert.equal(await prepareStateDisk(options), 'kept');
      assert.equal((await disk.header()).uuid, uuid);
      await rm(`${folder}/state.key`);
      await mkdir(`${folder}/state/asterism`, { recursive: true });
      await writeFile(`${folder}/state/asterism/init-journal.json`, '{}');
      assert.equal(await prepareStateDisk(options), 'formatted');
      assert.notEqual((await disk.header()).uuid, uuid);
      await assert.rejects(access(`${folder}/state/asterism/init-journal.json`), { code: 'ENOENT' });
    });

    it("never formats a member's disk: it gets it unlocked, once per boot", async () => {
      await prepareStateDisk(options);
      await disk.setInitialized(true);
      await rm(`${folder}/state.key`);
      const { uuid } = await disk.header();
      assert.equal(await prepareStateDisk(options), 'unlocked');
      assert.deepEqual(unlocked, [uuid]);
      tpm.pcr = clusterIdPcr(new Uint8Array(32));
      assert.equal(await prepareStateDisk(options), 'kept');
      assert.deepEqual(unlocked, [uuid]);
    });

    it('formats anew what was formatted but never mounted', async () => {
      await prepareStateDisk(options);
      const { uuid } = await disk.header();
      const volume = Object.assign(new PlainVolume(`${folder}/state`), { isOpen: async () => false });
      assert.equal(await prepareStateDisk({ ...options, volume }), 'formatted');
      assert.notEqual((await disk.header()).uuid, uuid);
    });

    it("does not pass a member's disk off as open that is not mounted", async () => {
      await prepareStateDisk(options);
      await disk.setInitialized(true);
      tpm.pcr = clusterIdPcr(new Uint8Array(32));
      const volume = Object.assign(new PlainVolume(`${folder}/state`), { isOpen: async () => false });
      await assert.rejects(prepareStateDisk({ ...options, volume }), { code: 'ERR_NODE_STATE' });
    });

    it('refuses a foreign header and leaves it as it is', async () => {
      await disk.format(new Uint8Array(32).fill(3));
      const before = await readFile(disk.device);
      before[0x4000 + 8] = 0xff;
      before[5000]! ^= 1;
      await writeFile(disk.device, before);
      await assert.rejects(prepareStateDisk(options), { code: 'ERR_PARSE' });
      assert.ok((await readFile(disk.device)).equals(before));
    });

    it('refuses a new disk in a machine that is a member', async () => {
      tpm.pcr = clusterIdPcr(new Uint8Array(32));
      await assert.rejects(prepareStateDisk(options), { code: 'ERR_NODE_STATE' });
    });
  });

  describe('recovery over aTLS', () => {
    const master = randomBytes(32);
    const uri = (key: Buffer): string => `kms://cluster-kms?key=${key.toString('hex')}`;
    let serving: Promise<void>;
    let client: ReturnType<typeof connect>;
    let stop: AbortController;

    const connect = (port: number) =>
      atlsClient(API, { host: '127.0.0.1', port, verifiers: [fakeVerifier()], callTimeoutMs: 20_000 });

    beforeEach(async () => {
      const temporary = Uint8Array.from(randomBytes(32));
      const { uuid } = await disk.format(temporary);
      await disk.rekey(temporary, deriveKey(master, SALT, `key-${uuid}`, 32));
      await disk.setInitialized(true);
      const layout = stateLayout(`${folder}/state`);
      await writeNodeState(layout.nodeState, { role: 'ControlPlane', measurementSalt });
      const unlocker = new Unlocker({
        disk,
        tpm,
        layout,
        volume: new PlainVolume(layout.root),
        clusterId: async (secret, salt) => clusterId(secret, salt),
      });
      stop = new AbortController();
      let port = 0;
      const server = new AtlsGrpcServer({ issuer: fakeIssuer() });
      const listen = server.listen.bind(server);
      server.listen = async (...args) => {
        const address = await listen(...args);
        port = address.port;
        return address;
      };
      serving = serveRecovery(
        () => server,
        { diskUuid: uuid, openKms, unlocker, log: quiet },
        stop.signal,
        0,
      );
      serving.catch(() => {});
      while (port === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      client = connect(port);
    });
    afterEach(async () => {
      client.close();
      stop.abort();
      await serving.catch(() => {});
    });

    it("answers OK when the key opened the disk and PCR 15 is the cluster's", async () => {
      await client.recover({ kmsUri: uri(master), storageUri: 'storage://no-store' });
      await serving;
      const secret = deriveKey(master, SALT, 'key-measurementSecret', 32);
      assert.deepEqual(tpm.pcr, clusterIdPcr(clusterId(secret, measurementSalt)));
    });

    it('tells a wrong master secret apart, changes nothing and stays up for the right one', async () => {
      await assert.rejects(client.recover({ kmsUri: uri(randomBytes(32)) }), {
        code: 'ERR_RECOVERY_KEY',
        status: 'INVALID_ARGUMENT',
      });
      assert.ok(isZero(tpm.pcr));
      await client.recover({ kmsUri: uri(master) });
      await serving;
      assert.ok(!isZero(tpm.pcr));
    });

    it('refuses malformed URIs', async () => {
      for (const kmsUri of ['', 'kms://nonsense', 'x'.repeat(9000)]) {
        await assert.rejects(client.recover({ kmsUri }), {
          status: 'INVALID_ARGUMENT',
          code: 'ERR_RECOVERY_REQUEST',
        });
      }
    });

    it('throttles guessing: the tenth wrong secret is not tried', async () => {
      for (let attempt = 1; attempt <= 9; attempt++) {
        await assert.rejects(client.recover({ kmsUri: uri(randomBytes(32)) }), { code: 'ERR_RECOVERY_KEY' });
      }
      await assert.rejects(client.recover({ kmsUri: uri(master) }), {
        code: 'ERR_RECOVERY_THROTTLED',
        status: 'RESOURCE_EXHAUSTED',
      });
      assert.ok(isZero(tpm.pcr));
    });
  });

  describe('race', () => {
    const never = (signal: AbortSignal): Promise<never> =>
      new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(signal.reason), { once: true }),
      );

    it('a way that fails does not end the other', async () => {
      const failing = async (): Promise<string> => {
        throw new Error('port taken');
      };
      const slow = () => new Promise<string>((resolve) => setTimeout(() => resolve('good'), 50));
      assert.equal(await firstGood([failing, slow], new AbortController().signal), 'good');
    });

    it('the winner stops the loser and waits for it', async () => {
      let stopped = false;
      const loser = (signal: AbortSignal): Promise<string> =>
        never(signal).catch((error) => {
          stopped = true;
          throw error;
        });
      assert.equal(await firstGood([async () => 'won', loser], new AbortController().signal), 'won');
      assert.equal(stopped, true);
    });

    it('fails only when all have failed', async () => {
      const failing = async (): Promise<string> => {
        throw new Error('no');
      };
      await assert.rejects(firstGood([failing, failing], new AbortController().signal), AggregateError);
    });
  });
});
