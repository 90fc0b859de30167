import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { access, readFile, rm, stat } from 'node:fs/promises';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import type { Verifier } from '@asterism/attestation/types';
import { isZero } from '@asterism/bytes/bytes';
import { clusterId } from '@asterism/crypto/derive';
import { renderKeyToken } from '@asterism/disk/key-token';
import { readNodeState } from '@asterism/disk/node-state';
import { PolicyError } from '@asterism/errors/errors';
import { ClusterCa } from '@asterism/kubernetes/ca';
import { checkKubeletCsr } from '@asterism/kubernetes/csr';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import {
  API,
  type IssueJoinTicketRequest,
  type IssueJoinTicketResponseSchema,
} from '@asterism/rpc/gen/join_pb';
import { JoinPeers } from '@asterism/rpc/join-peers';
import { clusterIdPcr } from '@asterism/runtime/machine-tpm';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { FakeKubeadm } from './fake-kubeadm.ts';
import { instance, makeTestMachine, type TestMachine, testKeys, testMetadata } from './fake-machine.ts';
import { JoinClient, TicketExpiredError } from './join-client.ts';
import { joinPhases } from './join-phases.ts';
import { CONTROL_PLANE_FILES, loadTicket, saveTicket } from './join-ticket.ts';
import { Journal } from './journal.ts';
import { NodeLock } from './node-lock.ts';
import { decideStart } from './start.ts';

const quiet = { info() {}, warn() {} };
const secret = new Uint8Array(32).fill(1);
const salt = new Uint8Array(32).fill(2);
const id = clusterId(secret, salt);
const diskKey = Uint8Array.from(randomBytes(32));
const keyToken = { keys: [{ name: '2.0' }] };

const self = { nodeName: 'w-0', address: '10.77.1.3' };
const openssl = (...args: string[]): void => {
  execFileSync('openssl', args, { stdio: 'ignore' });
};

/** A CA as kubeadm makes it. */
async function makeCa(folder: string): Promise<ClusterCa> {
  const usage = ['-addext', 'keyUsage=critical,keyCertSign,digitalSignature'];
  const files = ['-out', `${folder}/ca.crt`, '-keyout', `${folder}/ca.key`];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', '-subj', '/CN=kubernetes', ...usage, ...files, ...key);
  return ClusterCa.load(folder);
}

/** The fake evidence, as if its verified quote had these PCRs. */
function verifierWithPcrs(
  peer: ReadonlyMap<number, Uint8Array>,
  expected: ReadonlyMap<number, Uint8Array>,
): Verifier {
  const fake = fakeVerifier();
  return {
    ...fake,
    async verify(document, nonce) {
      const verdict = await fake.verify(document, nonce);
      for (const [index, value] of expected) {
        if (!Buffer.from(peer.get(index) ?? []).equals(value))
          throw new PolicyError('ERR_PCR', `PCR ${index} differs`);
      }
      return { ...verdict, pcrs: peer };
    },
  };
}

describe('join over mutual aTLS', () => {
  let machine: TestMachine;
  let stop: (() => Promise<void>)[];
  let requests: IssueJoinTicketRequest[];
  let peerPcrs: Map<number, Uint8Array>;
  let change: MessageInitShape<typeof IssueJoinTicketResponseSchema>;
  let port: number;
  let folder: TemporaryFolder;
  let ca: ClusterCa;
  let otherCa: ClusterCa;
  let certifyWith: ClusterCa;

  before(async () => {
    folder = await temporaryFolder();
    ca = await makeCa(folder.path);
    await using another = await temporaryFolder();
    otherCa = await makeCa(another.path);
  });
  after(() => folder[Symbol.asyncDispose]());

  beforeEach(async () => {
    machine = await makeTestMachine();
    stop = [() => machine.remove()];
    requests = [];
    change = {};
    certifyWith = ca;
    peerPcrs = new Map(machine.tpm.pcrs).set(15, clusterIdPcr(id));
    const server = new AtlsGrpcServer({ issuer: fakeIssuer(), verifiers: [fakeVerifier()] });
    server.addService(API, {
      async issueJoinTicket(request, { peer }) {
        assert.ok(peer.verdict !== undefined, 'the joining node shows evidence');
        requests.push(request);
        return {
          stateDiskKey: diskKey,
          diskKeyToken: renderKeyToken(keyToken),
          measurementSalt: salt,
          measurementSecret: secret,
          kubeletCert: await certify(request.certificateRequest, certifyWith),
          apiServerEndpoint: '10.77.1.1:6443',
          clusterCaCert: Buffer.from(ca.pem),
          discoveryTokenCaCertHash: ca.pin(),
          controlPlaneFiles: request.isControlPlane ? filesOf(ca) : [],
          kubernetesComponents: [],
          ...change,
        };
      },
      issueRejoinTicket: async () => ({}),
      issueDiskKeys: async () => ({}),
    });
    const address = await server.listen(0, '127.0.0.1');
    port = address.port;
    stop.push(() => server.stop(0));
  });
  afterEach(async () => {
    for (const end of stop.reverse()) await end();
  });

  const certify = async (csr: Uint8Array, issuer: ClusterCa): Promise<Uint8Array> => {
    const certificate = await issuer.sign({
      subject: [{ O: ['system:nodes'] }, { CN: ['system:node:w-0'] }],
      publicKey: await checkKubeletCsr(csr, self),
      names: [{ type: 'ip', value: self.address }],
      usages: ['client', 'server'],
      validForMs: 3_600_000,
    });
    return Buffer.from(certificate);
  };
  const filesOf = (issuer: ClusterCa) =>
    CONTROL_PLANE_FILES.map((name) => ({
      name,
      data: Buffer.from(name === 'ca.crt' ? issuer.pem : name),
    }));

  function client(role: 'Worker' | 'ControlPlane', lock = new NodeLock()): JoinClient {
    const metadata = testMetadata(instance('W_0', '10.77.1.3', role), [
      instance('cp-0', '127.0.0.1', 'ControlPlane'),
      instance('w-1', '127.0.0.2', 'Worker'),
    ]);
    const peers = new JoinPeers({
      metadata,
      tpm: machine.tpm,
      issuer: fakeIssuer(),
      verifiersFor: (expected) => [verifierWithPcrs(peerPcrs, expected)],
      port,
      timeoutMs: 5000,
    });
    return new JoinClient({
      machine: machine.machine,
      metadata,
      peers,
      keys: testKeys,
      lock,
      log: quiet,
      intervalMs: 50,
      retryMs: 20,
    });
  }

  const notTouched = async (): Promise<void> => {
    assert.ok(isZero(machine.tpm.pcrs.get(15)!));
    assert.deepEqual(machine.node.steps, []);
    assert.equal(await machine.machine.disk.testKey(machine.temporaryKey), true);
    await assert.rejects(access(machine.machine.layout.joinTicket), { code: 'ENOENT' });
  };
  const shortly = (): AbortSignal => AbortSignal.timeout(700);

  it('a worker joins: disk, PCR 15, node state, kubelet certificate, kubeadm', async () => {
    assert.equal(await client('Worker').run(AbortSignal.timeout(60_000)), 'joined');
    const { layout, disk } = machine.machine;
    assert.equal(requests[0]!.diskUuid, (await disk.header()).uuid);
    assert.equal(requests[0]!.isControlPlane, false);
    assert.deepEqual(machine.tpm.pcrs.get(15), clusterIdPcr(id));
    assert.equal(await disk.testKey(diskKey), true);
    assert.equal(await disk.testKey(machine.temporaryKey), false);
    assert.deepEqual((await disk.header()).keyToken, keyToken);
    assert.deepEqual(await readNodeState(layout.nodeState), { role: 'Worker', measurementSalt: salt });
    const pki = [...machine.node.files.keys()].filter((path) => path.startsWith('/etc/kubernetes/pki/'));
    assert.deepEqual(pki, ['/etc/kubernetes/pki/ca.crt']);
    assert.match(machine.node.files.get('/etc/kubernetes/kubeadm.yaml')!, /name: w-0/);
    // It goes to the cluster as the node that its certificate names; the key is in one file only.
    const holders = [...machine.node.files].filter(([, content]) => content.includes('PRIVATE KEY'));
    assert.deepEqual(
      holders.map(([path]) => path),
      ['/run/state/kubelet/pki/kubelet.key'],
    );
    assert.match(machine.node.files.get('/etc/kubernetes/discovery.conf')!, /pki\/kubelet\.key/);
    assert.deepEqual(
      machine.node.steps.filter((step) => step.startsWith('kubeadm')),
      ['preflight', 'kubelet-start'].map(
        (phase) => `kubeadm join phase ${phase} /etc/kubernetes/kubeadm.yaml`,
      ),
    );
    assert.equal((await Journal.load(layout.joinJournal))!.complete, true);
    await assert.rejects(access(layout.joinTicket), { code: 'ENOENT' });
    assert.deepEqual(await decideStart(machine.tpm.pcrs.get(15)!, layout), { kind: 'member' });
  });

  it('a control plane gets its files, and only those that belong to it', async () => {
    assert.equal(await client('ControlPlane').run(AbortSignal.timeout(60_000)), 'joined');
    for (const name of CONTROL_PLANE_FILES)
      assert.equal(machine.node.files.get(`/etc/kubernetes/pki/${name}`), name === 'ca.crt' ? ca.pem : name);
    assert.ok(machine.node.files.has('/etc/kubernetes/audit-policy.yaml'));
  });

  const refused: Record<string, () => void> = {
    'a JoinService that booted something else': () => {
      peerPcrs.set(11, new Uint8Array(32).fill(0xee));
    },
    'a JoinService that is no member of a cluster': () => {
      peerPcrs.set(15, new Uint8Array(32));
    },
    "a ticket of another cluster than its giver's": () => {
      peerPcrs.set(15, clusterIdPcr(new Uint8Array(32)));
    },
    'a disk key of another length': () => {
      change = { stateDiskKey: new Uint8Array(16) };
    },
    'names of keys that cannot be read': () => {
      change = { diskKeyToken: Buffer.from('{"type":"systemd-tpm2","keyslots":["0"]}') };
    },
    'no names of keys': () => {
      change = { diskKeyToken: new Uint8Array() };
    },
    'control-plane files for a worker': () => {
      change = { controlPlaneFiles: [{ name: 'ca.key', data: Buffer.from('x') }] };
    },
    'a file with another name': () => {
      change = { controlPlaneFiles: [{ name: '../../shadow', data: Buffer.from('x') }] };
    },
    'an endpoint with YAML in it': () => {
      change = { apiServerEndpoint: 'a:1\nkind: x' };
    },
    'a CA that is not the one it names': () => {
      change = { clusterCaCert: Buffer.from(otherCa.pem) };
    },
    'no CA': () => {
      change = { clusterCaCert: new Uint8Array() };
    },
    'a certificate of another CA': () => {
      certifyWith = otherCa;
    },
    'a certificate for another key': () => {
      change = { kubeletCert: Buffer.from(ca.pem) };
    },
    'a component outside its folders': () => {
      change = {
        kubernetesComponents: [
          { url: 'http://x/', hash: `sha256:${'0'.repeat(64)}`, installPath: '/etc/passwd', extract: false },
        ],
      };
    },
  };
  for (const [what, make] of Object.entries(refused)) {
    it(`refuses ${what}, and stays what it was`, async () => {
      make();
      assert.equal(await client('Worker').run(shortly()), 'given-up');
      await notTouched();
    });
  }

  it('refuses two CAs for a control plane', async () => {
    change = { controlPlaneFiles: filesOf(otherCa) };
    assert.equal(await client('ControlPlane').run(shortly()), 'given-up');
    await notTouched();
  });

  it('sends nothing to a JoinService that booted something else', async () => {
    peerPcrs.set(4, new Uint8Array(32).fill(0xee));
    await client('Worker').run(shortly());
    assert.equal(requests.length, 0);
  });

  it('leaves the node to an init that has begun', async () => {
    const lock = new NodeLock();
    lock.tryTake('init');
    assert.equal(await client('Worker', lock).run(shortly()), 'given-up');
    assert.equal(requests.length, 0);
    await notTouched();
  });

  it('tries a failing phase again, then joins', async () => {
    let failures = 3;
    machine.node.hook = async (step) => {
      if (step.startsWith('kubeadm') && failures-- > 0) throw new Error('the API server is busy');
    };
    assert.equal(await client('Worker').run(AbortSignal.timeout(60_000)), 'joined');
    assert.equal(machine.node.steps.filter((step) => step === 'images').length, 1);
    assert.equal(requests.length, 1);
  });

  for (const role of ['Worker', 'ControlPlane'] as const) {
    for (const how of ['killed', 'rebooted'] as const) {
      it(`a ${role} that is ${how} at every moment, again and again, joins`, async () => {
        let killed = new AbortController();
        const seen = new Set<string>();
        const kubeadm = new FakeKubeadm(machine.node.files, async (moment) => {
          if (seen.has(moment)) return;
          seen.add(moment);
          killed.abort();
          throw new Error('killed');
        });
        machine.node.hook = (step) => kubeadm.step(step);
        assert.equal(await client(role).run(killed.signal), 'given-up');
        const { layout } = machine.machine;
        assert.equal((await stat(layout.joinTicket)).mode & 0o777, 0o600);
        for (let starts = 0; ; starts++) {
          if (how === 'rebooted') kubeadm.kubeletRuns = false;
          const start = await decideStart(machine.tpm.pcrs.get(15)!, layout);
          if (start.kind === 'member') break;
          assert.ok(start.kind === 'resume-join' && starts < 200, `start ${starts}: ${start.kind}`);
          killed = new AbortController();
          const limit = AbortSignal.any([killed.signal, AbortSignal.timeout(30_000)]);
          await client(role)
            .resume(start.journal, limit)
            .catch((error) => assert.ok(killed.signal.aborted, `it got stuck: ${error}`));
        }
        assert.ok(seen.size > (role === 'Worker' ? 20 : 45), `${seen.size} kills`);
        assert.equal(kubeadm.etcd, role === 'Worker' ? 'none' : 'voting');
        assert.equal(kubeadm.nodeReady, true);
        const journal = (await Journal.load(layout.joinJournal))!;
        assert.deepEqual(
          journal.done,
          joinPhases(role).map(({ name }) => name),
        );
        assert.equal(machine.node.files.has('/etc/kubernetes/bootstrap-kubelet.conf'), false);
      });
    }
  }

  it('asks for a new ticket where the kill came before PCR 15', async () => {
    const { layout } = machine.machine;
    await Journal.begin(layout.joinJournal, 'join', Buffer.from(id).toString('hex'), 'disk');
    assert.deepEqual(await decideStart(machine.tpm.pcrs.get(15)!, layout), { kind: 'fresh' });
    assert.equal(await Journal.load(layout.joinJournal), undefined);
  });

  it('gives up the node where the ticket has expired, instead of trying for ever', async () => {
    const stopped = new AbortController();
    machine.node.hook = async () => {
      stopped.abort();
      throw new Error('never');
    };
    assert.equal(await client('Worker').run(stopped.signal), 'given-up');
    const { layout } = machine.machine;
    const ticket = await loadTicket(layout.joinTicket);
    await saveTicket(layout.joinTicket, {
      ...ticket,
      receivedAt: new Date(Date.now() - 16 * 60_000).toISOString(),
    });
    const journal = (await Journal.load(layout.joinJournal))!;
    await assert.rejects(client('Worker').resume(journal, AbortSignal.timeout(60_000)), TicketExpiredError);
  });

  it('is never given up once etcd may count on the node, whatever fails', async () => {
    let tries = 0;
    let stopped = new AbortController();
    machine.node.hook = async (step) => {
      if (!step.includes('etcd-join')) return;
      if (tries-- === 0) stopped.abort();
      throw new Error('etcd has no quorum');
    };
    assert.equal(await client('ControlPlane').run(stopped.signal), 'given-up');
    const { layout } = machine.machine;
    const ticket = await loadTicket(layout.joinTicket);
    await saveTicket(layout.joinTicket, { ...ticket, receivedAt: new Date(0).toISOString() });
    const journal = async () => (await Journal.load(layout.joinJournal))!;
    tries = 5;
    stopped = new AbortController();
    await assert.rejects(client('ControlPlane').resume(await journal(), stopped.signal), {
      name: 'AbortError',
    });
    // Without its ticket it cannot go on; its member has to be removed by hand.
    await rm(layout.joinTicket);
    await assert.rejects(client('ControlPlane').resume(await journal(), shortly()), {
      code: 'ERR_JOIN_TICKET',
      message: /remove it from etcd/,
    });
    machine.node.hook = async () => {};
    await saveTicket(layout.joinTicket, { ...ticket, receivedAt: new Date(0).toISOString() });
    await client('ControlPlane').resume(await journal(), AbortSignal.timeout(60_000));
    assert.equal((await journal()).complete, true);
  });

  it('refuses to start where PCR 15 names a cluster that the disk knows nothing of', async () => {
    await assert.rejects(decideStart(clusterIdPcr(id), machine.machine.layout), { code: 'ERR_NODE_STATE' });
    await Journal.begin(machine.machine.layout.initJournal, 'init', 'ee'.repeat(32), 'order');
    await assert.rejects(decideStart(clusterIdPcr(id), machine.machine.layout), { code: 'ERR_NODE_STATE' });
    assert.ok(!(await readFile(machine.machine.layout.initJournal, 'utf8')).includes('master'));
  });
});
