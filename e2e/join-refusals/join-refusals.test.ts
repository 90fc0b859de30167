// Who asks a live cluster for what is not his gets nothing: a program in a worker's place, with that worker's address
// and a TPM that shows just what a good node shows; a machine that booted something else; a member; a crowd.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fromHex, toHex } from '@asterism/bytes/encoding';
import { imageFolder } from '@asterism/image/build';
import { STAGES, stageDigest } from '@asterism/image/stages';
import { runningInit } from '@asterism/provider-local/node';
import { verifyAuditLog } from '@asterism/runtime/audit-log';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { asterism, type Cluster, must, run, SKIP, sharedCluster } from '../cluster.ts';
import type { Answer, Attempt, Call } from './outsider.ts';

const ROOT = join(import.meta.dirname, '../..');
const AUDIT_LOG = '/run/state/asterism/audit/join-service.log';
const SILENT_CONNECTIONS = 500;

describe('join refusals', { skip: SKIP }, () => {
  let cluster: Cluster;
  let worker: Cluster['workers'][number];
  let controlPlane: Cluster['controlPlanes'][number];
  /** By the name of the node that owns it. */
  const disks = new Map<string, string>();
  /** What a machine measures that boots the cluster's image. */
  let goodBoot: { pcr: number; digest: string }[];

  before(async () => {
    cluster = await sharedCluster();
    worker = cluster.workers[0]!;
    controlPlane = cluster.controlPlanes[0]!;
    const listed = JSON.parse(await must(cluster.kubectl(['-n', 'kube-system', 'get', 'cm', '-o', 'json'])));
    for (const { metadata, data } of listed.items) {
      const uuid = /^disk-(.+)$/.exec(metadata.name)?.[1];
      if (uuid !== undefined) disks.set(data.instanceName, uuid);
    }
    const folder = await imageFolder(cluster.state.image);
    assert.ok(folder !== undefined);
    goodBoot = await Promise.all(
      STAGES.map(async ({ pcr, file }) => ({
        pcr,
        digest: toHex(await stageDigest(file, join(folder, file))),
      })),
    );
  });

  /** Calls the JoinService from the worker's network. */
  const outsider = (events: Attempt['events'], ...calls: Call[]) => attempt({ events, calls });
  async function attempt(what: Omit<Attempt, 'host'>): Promise<Answer[]> {
    const init = await runningInit(cluster.state.uid, worker.name);
    assert.ok(init !== undefined);
    const attempt: Attempt = { host: controlPlane.address, ...what };
    const program = [join(ROOT, 'tools/node'), join(import.meta.dirname, 'outsider.ts')];
    const answers = await must(
      run('nsenter', ['-t', String(init.pid), '-n', '--', ...program], { stdin: JSON.stringify(attempt) }),
    );
    return JSON.parse(answers);
  }
  const refused = (answer: Answer | undefined, code: string) => {
    assert.equal(answer?.granted, false);
    assert.equal(answer.code, code, answer.message);
  };
  const refusedByHandshake = (answer: Answer | undefined, reason = 'ERR_MEASUREMENTS_DIFFER') => {
    refused(answer, 'ERR_ATLS_REFUSED');
    assert.match(answer?.message ?? '', new RegExp(reason));
  };
  const joinAs = (nodeName: string, address: string, controlPlane = false): Call => ({
    join: crypto.randomUUID(),
    nodeName,
    address,
    controlPlane,
  });

  test('with the address and the PCRs of a worker: no key of any disk, no control-plane files, no other name', async () => {
    const [another, own, files, name, address] = await outsider(
      goodBoot,
      { rejoin: disks.get(controlPlane.name)! },
      { rejoin: disks.get(worker.name)! },
      joinAs(worker.name, worker.address, true),
      joinAs(controlPlane.name, worker.address),
      joinAs(worker.name, controlPlane.address),
    );
    refused(another, 'ERR_DISK_OWNER');
    refused(own, 'ERR_DISK_OWNER');
    refused(files, 'ERR_ROLE');
    refused(name, 'ERR_CSR');
    refused(address, 'ERR_CSR');
  });

  for (const { pcr, file } of STAGES) {
    test(`of another ${file}: no handshake`, async () => {
      const events = goodBoot.map((event) =>
        event.pcr === pcr ? { pcr, digest: toHex(randomBytes(32)) } : event,
      );
      const [answer] = await outsider(events, joinAs(worker.name, worker.address));
      refusedByHandshake(answer);
    });
  }

  test('with the quote of an earlier handshake: no handshake', async () => {
    const call: Call = { rejoin: disks.get(worker.name)! };
    const [first, second] = await attempt({ events: goodBoot, calls: [call, call], evidence: 'replayed' });
    // Fresh it was good enough to be heard.
    refused(first, 'ERR_DISK_OWNER');
    refusedByHandshake(second, 'ERR_QUOTE_NONCE');
  });

  test('with a genuine quote beside a forged one of the PCRs that are compared: no handshake', async () => {
    const [answer] = await attempt({
      events: [{ pcr: 4, digest: toHex(randomBytes(32)) }],
      calls: [joinAs(worker.name, worker.address)],
      evidence: { claims: goodBoot },
    });
    refusedByHandshake(answer, 'ERR_QUOTE_SIGNATURE');
  });

  test('a member of another cluster: no handshake', async () => {
    const [answer] = await outsider(
      [...goodBoot, { pcr: 15, digest: toHex(randomBytes(32)) }],
      joinAs(worker.name, worker.address),
    );
    refusedByHandshake(answer);
  });

  test('with the PCRs of a member of this cluster: no ticket, no key of any disk, no word for one', async () => {
    const { clusterId } = cluster.state;
    assert.ok(clusterId !== undefined);
    const digest = createHash('sha256').update(fromHex(clusterId)).digest('hex');
    const disk = disks.get(worker.name)!;
    const [ticket, rejoin, own, another, proof] = await outsider(
      [...goodBoot, { pcr: 15, digest }],
      joinAs(worker.name, worker.address),
      { rejoin: disk },
      { diskKeys: disk },
      { diskKeys: disks.get(controlPlane.name)! },
      { diskKeys: disk, proven: '1.1' },
    );
    for (const answer of [ticket, rejoin]) refused(answer, 'ERR_IS_MEMBER');
    for (const answer of [own, another, proof]) refused(answer, 'ERR_DISK_OWNER');
  });

  test(`${SILENT_CONNECTIONS} connections that say nothing do not keep others from being answered`, async () => {
    const sockets: Socket[] = [];
    try {
      await Promise.all(
        Array.from({ length: SILENT_CONNECTIONS }, async () => {
          const socket = connect(30090, controlPlane.address);
          sockets.push(socket);
          await new Promise<void>((resolve, reject) => {
            socket.once('connect', resolve);
            socket.once('error', reject);
          });
          socket.on('error', () => {});
        }),
      );
      const [answer] = await outsider(goodBoot, { rejoin: disks.get(worker.name)! });
      refused(answer, 'ERR_DISK_OWNER');
    } finally {
      for (const socket of sockets) socket.destroy();
    }
  });

  test('all of it is in the audit log of the JoinService, whose chain is whole', async () => {
    await using folder = await temporaryFolder();
    const log = await must(asterism(['local', 'exec', controlPlane.name, '--', 'cat', AUDIT_LOG]));
    await writeFile(folder.file('log'), log);
    const { lines, lost } = await verifyAuditLog(folder.file('log'));
    assert.equal(lost, 0);
    const entries = log
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.equal(entries.length, lines);
    const refusals = entries.filter(
      ({ outcome, address }) => outcome === 'refused' && address === worker.address,
    );
    for (const reason of [
      'ERR_DISK_OWNER',
      'ERR_ROLE',
      'ERR_CSR',
      'ERR_MEASUREMENTS_DIFFER',
      'ERR_QUOTE_NONCE',
      'ERR_QUOTE_SIGNATURE',
    ]) {
      assert.ok(
        refusals.some((entry) => entry.reason === reason),
        reason,
      );
    }
    assert.ok(entries.some(({ outcome, node }) => outcome === 'granted' && node === worker.name));
  });

  after(async () => {
    if (cluster === undefined) return;
    // Whatever was tried, the worker itself is a member as before.
    await must(asterism(['verify'], { timeoutMs: 60_000 }));
  });
});
