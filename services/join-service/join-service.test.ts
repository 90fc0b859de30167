import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { parseMeasurements } from '@asterism/attestation/measurements';
import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { QemuVtpmVerifier } from '@asterism/attestation/variants/qemu-vtpm/verifier';
import { toHex } from '@asterism/bytes/encoding';
import { deriveKey } from '@asterism/crypto/derive';
import { parseKeyToken } from '@asterism/disk/key-token';
import { UnreachableError, VerificationError } from '@asterism/errors/errors';
import { type KubernetesApi, KubernetesApiError } from '@asterism/kubernetes/api';
import { ClusterCa } from '@asterism/kubernetes/ca';
import type { InstanceMetadata, Metadata, Role } from '@asterism/metadata/types';
import { type AtlsClient, atlsClient } from '@asterism/rpc/atls-client';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/join_pb';
import { StatusError } from '@asterism/rpc/status';
import { AuditLog, verifyAuditLog } from '@asterism/runtime/audit-log';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { KEY_SERVICE_NAME, type RunningKeyService, startKeyService } from '@asterism/testkit/key-service';
import { type Kube, startKube } from '@asterism/testkit/kube';
import { describeVersion } from '@asterism/testkit/services';
import { type Swtpm, startSwtpm } from '@asterism/testkit/swtpm';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { AddressedTpm } from '@asterism/tpm/machine';
import { withTpm } from '@asterism/tpm/with-tpm';
import { Registry } from 'prom-client';
import { keyClient } from './key-client.ts';
import { refusedHandshakes } from './refused-handshakes.ts';
import { joinService } from './service.ts';
import { JoinVerifier } from './verifier.ts';

const HOST = '127.0.0.1';
const MASTER = { key: new Uint8Array(32).fill(1), salt: new Uint8Array(32).fill(2) };
const MEASUREMENT_SALT = new Uint8Array(32).fill(3);
const SYSTEM = '/api/v1/namespaces/kube-system';
const LEASE = '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/asterism-control-plane-join';

interface Machine {
  readonly tpm: Swtpm;
  readonly keyId: string;
}

function csr(nodeName: string, address = HOST, subject = `/O=system:nodes/CN=system:node:${nodeName}`) {
  const key = [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-keyout',
    '-',
    '-outform',
    'PEM',
  ];
  const args = ['req', '-new', '-subj', subject, '-addext', `subjectAltName=IP:${address}`, ...key];
  const out = execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const pem = /-----BEGIN CERTIFICATE REQUEST-----([\s\S]+?)-----END/.exec(out)![1]!;
  return {
    der: new Uint8Array(Buffer.from(pem, 'base64')),
    key: /-----BEGIN PRIVATE KEY-----[\s\S]+?-----END PRIVATE KEY-----/.exec(out)![0],
  };
}

let uuids = 0;
const newUuid = () => `00000000-0000-4000-8000-${String(++uuids).padStart(12, '0')}`;

describe('JoinService: real TPM evidence, real Kubernetes API, real KeyService', { timeout: 280_000 }, () => {
  let kube: Kube;
  let folder: TemporaryFolder;
  let keys: RunningKeyService;
  let api: KubernetesApi;
  let worker: Machine;
  let other: Machine;
  let member: Machine;
  let measurements: Record<string, { expected: string; warnOnly: boolean }>;
  let clusterPcr: Uint8Array;
  let instances: InstanceMetadata[];
  const stop: (() => unknown)[] = [];

  const machine = async (
    extra?: (address: string) => Promise<unknown>,
    ends: (() => unknown)[] = stop,
  ): Promise<Machine> => {
    const tpm = await startSwtpm();
    ends.push(() => tpm[Symbol.asyncDispose]());
    for (const [pcr, stage] of [
      [4, 'boot'],
      [9, 'initrd'],
      [11, 'root'],
      [12, 'command line'],
    ] as const)
      await withTpm(tpm.address, (open) => open.eventPcr(pcr, new TextEncoder().encode(stage)));
    await extra?.(tpm.address);
    return { tpm, keyId: await new AddressedTpm(tpm.address, 'ecc-p256').attestationKeyId() };
  };
  const extend = (pcr: number, text: string) => (address: string) =>
    withTpm(address, (open) => open.eventPcr(pcr, new TextEncoder().encode(text)));

  before(async () => {
    [kube, folder, worker, other, member] = await Promise.all([
      startKube(),
      temporaryFolder(),
      machine(),
      machine(),
      machine(extend(15, 'cluster id')),
    ]);
    stop.push(
      () => folder[Symbol.asyncDispose](),
      () => kube[Symbol.asyncDispose](),
    );
    const deploy = join(import.meta.dirname, '../../deploy');
    for (const name of ['key-service', 'join-service'])
      await kube.apply(await readFile(join(deploy, name, `${name}.yaml`), 'utf8'));
    await describeVersion(kube);
    keys = await startKeyService(kube, MASTER, folder.file('keys.log'));
    stop.push(() => keys[Symbol.asyncDispose]());
    await writeFile(folder.file('token'), await kube.tokenOf('join-service', 'key-service'));
    // As the cluster's rules allow it to JoinService, not as an administrator.
    api = await kube.as('join-service');
    const pcrs = await new AddressedTpm(worker.tpm.address, 'ecc-p256').readPcrs();
    clusterPcr = (await new AddressedTpm(member.tpm.address, 'ecc-p256').readPcrs()).get(15)!;
    await bindingsOnly();
    measurements = Object.fromEntries(
      [4, 8, 9, 11, 12, 13, 15].map((pcr) => [pcr, { expected: toHex(pcrs.get(pcr)!), warnOnly: false }]),
    );
  });
  after(async () => {
    for (const end of stop.reverse()) await end();
  });

  /** Waits until the API server has taken note of the admission policy. */
  const bindingsOnly = async () => {
    const map = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'probe' } };
    const probe = () =>
      api.call('POST', `${SYSTEM}/configmaps?dryRun=All`, map).then(
        () => true,
        (error: KubernetesApiError) => error.status !== 403,
      );
    for (const limit = Date.now() + 60_000; await probe(); await delay(100))
      assert.ok(Date.now() < limit, 'the admission policy has no effect');
  };

  const at = (name: string, role: Role, vpcIp = HOST): InstanceMetadata => ({
    name,
    providerId: `local://${name}`,
    role,
    vpcIp,
    secondaryIpRange: '',
    aliasIpRanges: [],
  });
  const metadata: Metadata = {
    self: async () => at('control-plane-0', 'ControlPlane', '10.77.1.2'),
    list: async () => [at('control-plane-0', 'ControlPlane', '10.77.1.2'), ...instances],
    loadBalancerEndpoint: async () => '10.77.1.1',
    initSecretHash: async () => '',
  };

  let closing: (() => unknown)[];
  let auditPath: string;
  let port: number;
  let registry: Registry;
  let verifier: JoinVerifier;
  let runs = 0;
  const serve = async (options: { burst?: number; keyPort?: number } = {}) => {
    auditPath = folder.file(`audit-${runs++}.log`);
    const audit = await AuditLog.open(auditPath);
    registry = new Registry();
    verifier = new JoinVerifier(parseMeasurements(measurements), clusterPcr);
    const client = keyClient({
      host: HOST,
      port: options.keyPort ?? keys.port,
      serverName: KEY_SERVICE_NAME,
      ca: kube.ca,
      tokenFile: folder.file('token'),
    });
    const server = new AtlsGrpcServer({
      issuer: createQemuVtpmIssuer({ tpmAddress: member.tpm.address, eventLogPath: undefined }),
      verifiers: [verifier],
      onRefused: refusedHandshakes(audit, registry),
    });
    server.addService(
      API,
      joinService({
        api,
        metadata,
        dataKeys: client.dataKeys,
        own: { clusterPcr, attestationKeyId: member.keyId },
        ca: await ClusterCa.load(kube.pki),
        pki: kube.pki,
        measurementSalt: MEASUREMENT_SALT,
        limiter: new RateLimiter({ burst: options.burst ?? 1000, perSecond: 0.001 }),
        audit,
        registry,
      }),
    );
    ({ port } = await server.listen(0, HOST));
    closing.push(async () => {
      await server.stop(100);
      client.close();
      await audit.close();
    });
  };

  beforeEach(() => {
    closing = [];
    instances = [at('Worker_0', 'Worker')];
  });
  afterEach(async () => {
    for (const end of closing.reverse()) await end();
  });

  const from = (machine: Machine): AtlsClient<typeof API> => {
    const client = atlsClient(API, {
      host: HOST,
      port,
      issuer: createQemuVtpmIssuer({ tpmAddress: machine.tpm.address, eventLogPath: undefined }),
      verifiers: [new QemuVtpmVerifier({ measurements: parseMeasurements({ 4: measurements[4] }) })],
    });
    closing.push(() => client.close());
    return client;
  };
  const ticket = (diskUuid: string, isControlPlane = false, nodeName = 'worker-0') => ({
    diskUuid,
    isControlPlane,
    certificateRequest: csr(nodeName).der,
  });
  const refusal = (status: string, code: string) => (error: StatusError) => {
    assert.ok(error instanceof StatusError, String(error));
    assert.equal(`${error.status} ${error.code}`, `${status} ${code}`, error.message);
    return true;
  };
  const events = async () =>
    (await readFile(auditPath, 'utf8'))
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);

  const names = async (kind: string) => {
    type List = { items: { metadata: { name: string } }[] };
    const list = (await kube.admin.call('GET', `${SYSTEM}/${kind}`)) as unknown as List;
    return list.items.map(({ metadata }) => metadata.name);
  };
  const bootstrapTokens = async () =>
    (await names('secrets')).filter((name) => name.startsWith('bootstrap-token-'));
  /** Disk bindings in the cluster: what a refusal must not add to. */
  const made = async () => (await names('configmaps')).filter((name) => name.startsWith('disk-')).sort();
  const refused = async (call: () => Promise<unknown>, status: string, code: string) => {
    const before = await made();
    await assert.rejects(call(), refusal(status, code));
    assert.deepEqual(await made(), before, 'a refusal left something behind');
    const last = (await events()).at(-1)!;
    assert.equal(last.outcome, 'refused');
    assert.equal(last.reason, code);
  };

  it('refuses a worker that asks for the files of control planes', async () => {
    await serve();
    await refused(
      () => from(worker).issueJoinTicket(ticket(newUuid(), true)),
      'PERMISSION_DENIED',
      'ERR_ROLE',
    );
    instances = [at('worker-0', 'ControlPlane')];
    await refused(
      () => from(worker).issueJoinTicket(ticket(newUuid(), false)),
      'PERMISSION_DENIED',
      'ERR_ROLE',
    );
  });

  it('refuses machines that the provider does not know by their address', async () => {
    await serve();
    const call = () => from(worker).issueJoinTicket(ticket(newUuid()));
    for (const known of [
      [],
      [at('worker-0', 'Worker', '10.77.1.9')],
      [{ ...at('worker-0', 'Worker'), vpcIp: undefined }],
      [at('worker-0', 'Unknown')],
      [at('worker-0', 'Worker'), at('worker-1', 'Worker')],
    ]) {
      instances = known;
      await refused(call, 'PERMISSION_DENIED', 'ERR_UNKNOWN_PEER');
    }
    await assert.rejects(
      from(worker).issueRejoinTicket({ diskUuid: newUuid() }),
      refusal('PERMISSION_DENIED', 'ERR_UNKNOWN_PEER'),
    );
  });

  it('refuses certificate requests that are not exactly for this machine', async () => {
    await serve();
    const client = from(worker);
    const good = csr('worker-0').der;
    for (const certificateRequest of [
      new Uint8Array(),
      csr('worker-0', '10.77.1.2').der,
      csr('control-plane-0').der,
      csr('Worker_0').der,
      csr('', HOST, '/O=system:nodes/O=system:masters/CN=system:node:worker-0').der,
      csr('', HOST, '/O=system:masters/CN=system:node:worker-0').der,
      good.with(good.length - 1, good.at(-1)! ^ 1),
    ]) {
      const request = { diskUuid: newUuid(), isControlPlane: false, certificateRequest };
      await refused(() => client.issueJoinTicket(request), 'PERMISSION_DENIED', 'ERR_CSR');
    }
  });

  it('refuses disk UUIDs that are none', async () => {
    await serve();
    const client = from(worker);
    for (const uuid of ['', 'measurementSecret', '../secrets/x', `${newUuid()}/`, `${newUuid()}\n`])
      await refused(() => client.issueJoinTicket(ticket(uuid)), 'INVALID_ARGUMENT', 'ERR_DISK_UUID');
  });

  it('a worker gets a ticket with which it is a node, and no more', async () => {
    await serve();
    const uuid = newUuid();
    const request = csr('worker-0');
    const answer = await from(worker).issueJoinTicket({
      diskUuid: uuid.toUpperCase(),
      certificateRequest: request.der,
    });
    const derive = (id: string) => Buffer.from(deriveKey(MASTER.key, MASTER.salt, `key-${id}`, 32));
    assert.deepEqual(Buffer.from(answer.stateDiskKey), derive(uuid));
    assert.deepEqual(Buffer.from(answer.measurementSecret), derive('measurementSecret'));
    assert.deepEqual(Buffer.from(answer.measurementSalt), Buffer.from(MEASUREMENT_SALT));
    assert.equal(answer.apiServerEndpoint, '10.77.1.1:6443');
    assert.equal(answer.kubernetesVersion, 'v1.37.2');
    assert.equal(answer.kubernetesComponents.length, 13);
    assert.equal(answer.controlPlaneFiles.length, 0);

    const pem = Buffer.from(answer.kubeletCert).toString();
    const certificate = new X509Certificate(pem);
    const root = new X509Certificate(kube.ca);
    assert.ok(certificate.checkIssued(root) && certificate.verify(root.publicKey));
    assert.match(answer.discoveryTokenCaCertHash, /^sha256:[0-9a-f]{64}$/);
    const days = (Date.parse(certificate.validTo) - Date.now()) / 86_400_000;
    assert.ok(days > 364 && days <= 365.001, String(days));

    assert.equal(Buffer.from(answer.clusterCaCert).toString(), kube.ca);

    // The API server says whom it takes the holder of the certificate for.
    const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' };
    const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
    const asNode = await post(kube, path, review, { cert: pem, key: request.key });
    assert.equal(asNode.status.userInfo.username, 'system:node:worker-0');
    assert.deepEqual(asNode.status.userInfo.groups, ['system:nodes', 'system:authenticated']);
    // There is nothing else in it with which one could be somebody.
    assert.equal(answer.token, '');
    assert.deepEqual(await bootstrapTokens(), []);

    const binding = await kube.admin.call('GET', `${SYSTEM}/configmaps/disk-${uuid}`);
    assert.deepEqual(binding.data, { instanceName: 'Worker_0', attestationKeyId: worker.keyId, key: '1.0' });
    assert.deepEqual(parseKeyToken(answer.diskKeyToken), { keys: [{ name: '1.0' }] });

    const [line] = await events();
    assert.equal((await verifyAuditLog(auditPath)).lines, 1);
    assert.equal(line!.outcome, 'granted');
    assert.equal(line!.attestationKeyId, worker.keyId);
    assert.equal(line!.keyId, uuid);
    assert.equal(line!.node, 'worker-0');
    const text = await readFile(auditPath, 'utf8');
    for (const secretValue of [answer.stateDiskKey, answer.measurementSecret]) {
      assert.equal(text.includes(toHex(secretValue)), false);
      assert.equal(text.includes(Buffer.from(secretValue).toString('base64')), false);
    }
    assert.match(await registry.metrics(), /tickets_total\{kind="join",outcome="granted",reason=""\} 1/);
  });

  it("gives no machine another's disk key: not at join, not at rejoin", async () => {
    await serve();
    const uuid = newUuid();
    await from(worker).issueJoinTicket(ticket(uuid));
    // The same machine may ask again: its first answer may have been lost.
    await from(worker).issueJoinTicket(ticket(uuid));
    const { stateDiskKey } = await from(worker).issueRejoinTicket({ diskUuid: uuid });
    assert.deepEqual(
      Buffer.from(stateDiskKey),
      Buffer.from(deriveKey(MASTER.key, MASTER.salt, `key-${uuid}`, 32)),
    );

    // Another TPM under the same name.
    const join = () => from(other).issueJoinTicket(ticket(uuid));
    const rejoin = () => from(other).issueRejoinTicket({ diskUuid: uuid });
    await refused(join, 'PERMISSION_DENIED', 'ERR_DISK_OWNER');
    await refused(rejoin, 'PERMISSION_DENIED', 'ERR_DISK_OWNER');
    // The same TPM under another name.
    instances = [at('worker-1', 'Worker')];
    const renamed = () => from(worker).issueRejoinTicket({ diskUuid: uuid });
    await refused(renamed, 'PERMISSION_DENIED', 'ERR_DISK_OWNER');
    // A disk that nobody joined with.
    const unknown = () => from(worker).issueRejoinTicket({ diskUuid: newUuid() });
    await refused(unknown, 'PERMISSION_DENIED', 'ERR_DISK_OWNER');
  });

  it('of two machines that bind a disk at once exactly one gets its key', async () => {
    await serve();
    for (let round = 0; round < 5; round++) {
      const uuid = newUuid();
      const clients = [from(worker), from(other)];
      await Promise.all(clients.map((client) => client.peer()));
      const results = await Promise.allSettled(clients.map((client) => client.issueJoinTicket(ticket(uuid))));
      assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1);
      const loser = results.find((result) => result.status === 'rejected');
      assert.ok(refusal('PERMISSION_DENIED', 'ERR_DISK_OWNER')(loser!.reason));
    }
  });

  it('control planes get the shared files, and join one at a time', async () => {
    await serve();
    const join = (name: string, machine: Machine) => {
      instances = [at(name, 'ControlPlane')];
      return from(machine).issueJoinTicket(ticket(newUuid(), true, name));
    };
    const answer = await join('control-plane-1', worker);
    assert.deepEqual(answer.controlPlaneFiles.map(({ name }) => name).sort(), [
      'ca.crt',
      'ca.key',
      'etcd/ca.crt',
      'etcd/ca.key',
      'front-proxy-ca.crt',
      'front-proxy-ca.key',
      'sa.key',
      'sa.pub',
    ]);
    assert.deepEqual(
      Buffer.from(answer.controlPlaneFiles.find(({ name }) => name === 'ca.crt')!.data),
      await readFile(`${kube.pki}/ca.crt`),
    );
    // Its own turn, again; another's has not come.
    await join('control-plane-1', worker);
    const second = () => join('control-plane-2', other);
    const busy = (error: UnreachableError) =>
      error instanceof UnreachableError && error.code === 'ERR_JOIN_TURN';
    await assert.rejects(second(), busy);
    // A node that is there but not Ready is still joining.
    await kube.admin.call('POST', '/api/v1/nodes', { metadata: { name: 'control-plane-1' } });
    await assert.rejects(second(), busy);
    const node = await kube.admin.call('GET', '/api/v1/nodes/control-plane-1');
    const conditions = [{ type: 'Ready', status: 'True', reason: 'test', message: '' }];
    await kube.admin.call('PUT', '/api/v1/nodes/control-plane-1/status', { ...node, status: { conditions } });
    await second();
    // One that never becomes Ready holds the others up for ten minutes.
    await assert.rejects(join('control-plane-3', worker), busy);
    const lease = await kube.admin.call<{ spec: object }>('GET', LEASE);
    const renewTime = new Date(Date.now() - 601_000).toISOString().replace('Z', '000Z');
    await kube.admin.call('PUT', LEASE, { ...lease, spec: { ...lease.spec, renewTime } });
    await join('control-plane-3', worker);
  });

  it('refuses evidence that is not what the cluster demands, and records it', async () => {
    await serve();
    const changedInitrd = await machine(extend(9, 'one byte more'));
    const changedRoot = await machine(extend(11, 'one byte more'));
    const alreadyMember = await machine(extend(15, 'the id of some cluster'));
    for (const bad of [changedInitrd, changedRoot, alreadyMember]) {
      const before = await made();
      await assert.rejects(from(bad).issueJoinTicket(ticket(newUuid())), (error: VerificationError) => {
        assert.ok(error instanceof VerificationError, String(error));
        assert.equal(error.code, 'ERR_ATLS_REFUSED');
        return true;
      });
      assert.deepEqual(await made(), before);
    }
    const bare = atlsClient(API, { host: HOST, port, verifiers: [] });
    await assert.rejects(bare.issueJoinTicket(ticket(newUuid())));
    bare.close();
    const lines = await events();
    assert.ok(
      lines.length >= 2 &&
        lines.every(
          ({ event, outcome, address }) => event === 'handshake' && outcome === 'refused' && address === HOST,
        ),
    );
    assert.match(await registry.metrics(), /join_handshakes_refused_total\{reason="ERR_[A-Z_]+"\} 3/);
    // What the cluster demands may change while it serves.
    const pcrs = await new AddressedTpm(changedRoot.tpm.address, 'ecc-p256').readPcrs();
    const next = { ...measurements, 11: { expected: toHex(pcrs.get(11)!), warnOnly: false } };
    verifier.update(parseMeasurements(next));
    await from(changedRoot).issueJoinTicket(ticket(newUuid()));
    await assert.rejects(from(worker).issueJoinTicket(ticket(newUuid())), { code: 'ERR_ATLS_REFUSED' });
  });

  it('limits each address, and records how often it was refused', async () => {
    await serve({ burst: 3 });
    const client = from(worker);
    for (let i = 0; i < 3; i++) await client.issueJoinTicket(ticket(newUuid()));
    const request = ticket(newUuid());
    const before = await made();
    for (let i = 0; i < 9; i++)
      await assert.rejects(client.issueJoinTicket(request), refusal('RESOURCE_EXHAUSTED', 'ERR_RATE_LIMIT'));
    await assert.rejects(client.issueRejoinTicket(request), refusal('RESOURCE_EXHAUSTED', 'ERR_RATE_LIMIT'));
    assert.deepEqual(await made(), before);
    assert.deepEqual(
      (await events()).flatMap(({ times }) => (times === undefined ? [] : [times])),
      [1, 2, 4, 8],
    );
  });

  it('without the KeyService nothing is given', async () => {
    await serve({ keyPort: 1 });
    await assert.rejects(
      from(worker).issueJoinTicket(ticket(newUuid())),
      (error) => error instanceof UnreachableError,
    );
    assert.equal((await events()).at(-1)!.outcome, 'refused');
  });

  it('gives nothing when it cannot be recorded', async () => {
    await serve();
    const client = from(worker);
    const uuid = newUuid();
    await client.issueJoinTicket(ticket(uuid));
    await appendFile(auditPath, 'x');
    const unrecorded = refusal('FAILED_PRECONDITION', 'ERR_AUDIT_LOG');
    for (let i = 0; i < 2; i++) await assert.rejects(client.issueJoinTicket(ticket(uuid)), unrecorded);
    await assert.rejects(client.issueRejoinTicket({ diskUuid: uuid }), unrecorded);
  });

  const bindingOf = async (uuid: string) =>
    (await kube.admin.call('GET', `${SYSTEM}/configmaps/disk-${uuid}`)) as unknown as {
      data: Record<string, string>;
    };
  const setNext = async (uuid: string, nextKey: string) => {
    const binding = await bindingOf(uuid);
    const data = { ...binding.data, nextKey };
    await kube.admin.call('PUT', `${SYSTEM}/configmaps/disk-${uuid}`, { ...binding, data });
  };
  const derive = (id: string) => Buffer.from(deriveKey(MASTER.key, MASTER.salt, `key-${id}`, 32));
  const joined = async (node: Machine) => {
    const uuid = newUuid();
    await from(node).issueJoinTicket(ticket(uuid));
    return uuid;
  };
  const becomeMember = ({ tpm }: Machine) => extend(15, 'cluster id')(tpm.address);

  it('changes the key of a disk: both keys while it lasts, then on proof the new one alone', async () => {
    await serve();
    const node = await machine(undefined, closing);
    const uuid = await joined(node);
    await refused(() => from(node).issueDiskKeys({ diskUuid: uuid }), 'PERMISSION_DENIED', 'ERR_NO_MEMBER');
    await becomeMember(node);
    const client = from(node);
    await refused(() => client.issueJoinTicket(ticket(uuid)), 'PERMISSION_DENIED', 'ERR_IS_MEMBER');
    await refused(() => client.issueRejoinTicket({ diskUuid: uuid }), 'PERMISSION_DENIED', 'ERR_IS_MEMBER');

    const before = await client.issueDiskKeys({ diskUuid: uuid });
    assert.deepEqual([before.name, before.nextName, before.nextKey.length], ['1.0', '', 0]);
    assert.deepEqual(Buffer.from(before.key), derive(uuid));

    await setNext(uuid, '1.1');
    for (const proven of ['', '1.0']) {
      const both = await client.issueDiskKeys({ diskUuid: uuid, proven });
      assert.deepEqual([both.name, both.nextName], ['1.0', '1.1']);
      assert.deepEqual(Buffer.from(both.key), derive(uuid));
      assert.deepEqual(Buffer.from(both.nextKey), derive(`${uuid}.1`));
      assert.deepEqual(parseKeyToken(both.diskKeyToken), { keys: [{ name: '1.0' }, { name: '1.1' }] });
    }
    for (const proven of ['1.2', '2.0', 'x', '1.1\n', '9'.repeat(1000)])
      await refused(
        () => client.issueDiskKeys({ diskUuid: uuid, proven }),
        'PERMISSION_DENIED',
        'ERR_DISK_KEY',
      );
    assert.equal((await bindingOf(uuid)).data.key, '1.0');

    // Said again, because the answer was lost, it changes nothing more.
    for (let time = 0; time < 2; time++) {
      const after = await client.issueDiskKeys({ diskUuid: uuid, proven: '1.1' });
      assert.deepEqual([after.name, after.nextName, after.nextKey.length], ['1.1', '', 0]);
      assert.deepEqual(Buffer.from(after.key), derive(`${uuid}.1`));
      assert.deepEqual(parseKeyToken(after.diskKeyToken), { keys: [{ name: '1.1' }] });
    }
    const { data } = await bindingOf(uuid);
    assert.deepEqual(data, { instanceName: 'Worker_0', attestationKeyId: node.keyId, key: '1.1' });
    // A proof of before, kept and sent again, does not bring the old key back.
    await refused(
      () => client.issueDiskKeys({ diskUuid: uuid, proven: '1.0' }),
      'PERMISSION_DENIED',
      'ERR_DISK_KEY',
    );
    assert.equal((await bindingOf(uuid)).data.key, '1.1');
    const changes = (await events()).filter(({ event }) => event === 'disk-key-changed');
    assert.deepEqual(
      changes.map(({ keyId, keyName, node, outcome }) => [keyId, keyName, node, outcome]),
      [[uuid, '1.1', 'worker-0', 'granted']],
    );
    await verifyAuditLog(auditPath);
    assert.equal((await readFile(auditPath, 'utf8')).includes(derive(`${uuid}.1`).toString('hex')), false);
  });

  it('of two proofs at once one is recorded, and whoever lost asks again', async () => {
    await serve();
    const node = await machine(undefined, closing);
    const uuid = await joined(node);
    await becomeMember(node);
    await setNext(uuid, '1.1');
    const clients = [from(node), from(node)];
    await Promise.all(clients.map((client) => client.peer()));
    const results = await Promise.allSettled(
      clients.map((client) => client.issueDiskKeys({ diskUuid: uuid, proven: '1.1' })),
    );
    for (const result of results)
      assert.ok(result.status === 'fulfilled' || result.reason.code === 'ERR_DISK_BINDING_CHANGED');
    assert.ok(results.some(({ status }) => status === 'fulfilled'));
    const again = await from(node).issueDiskKeys({ diskUuid: uuid, proven: '1.1' });
    assert.equal(again.name, '1.1');
  });

  it("gives no member another's disk keys, and takes no word for another's disk", async () => {
    await serve();
    const [node, neighbour] = [await machine(undefined, closing), await machine(undefined, closing)];
    const uuid = await joined(node);
    await Promise.all([becomeMember(node), becomeMember(neighbour)]);
    await setNext(uuid, '1.1');
    const ask = (who: Machine, diskUuid = uuid) => from(who).issueDiskKeys({ diskUuid, proven: '1.1' });
    // Another TPM under the same name, the same TPM under another name, a disk that is nobody's.
    await refused(() => ask(neighbour), 'PERMISSION_DENIED', 'ERR_DISK_OWNER');
    instances = [at('worker-1', 'Worker')];
    await refused(() => ask(node), 'PERMISSION_DENIED', 'ERR_DISK_OWNER');
    await refused(() => ask(node, newUuid()), 'PERMISSION_DENIED', 'ERR_DISK_OWNER');
    instances = [];
    await refused(() => ask(node), 'PERMISSION_DENIED', 'ERR_UNKNOWN_PEER');
    await refused(() => ask(member, 'x'), 'INVALID_ARGUMENT', 'ERR_DISK_UUID');
    assert.equal((await bindingOf(uuid)).data.key, '1.0');
    // A member of another cluster is not let in at all.
    const stranger = await machine(extend(15, 'the id of some cluster'), closing);
    await assert.rejects(ask(stranger), { code: 'ERR_ATLS_REFUSED' });
  });

  it('knows its own node by its TPM, whatever address its bridge gave it', async () => {
    await serve();
    instances = [];
    const uuid = newUuid();
    const data = { instanceName: 'control-plane-0', attestationKeyId: member.keyId };
    await kube.admin.call('POST', `${SYSTEM}/configmaps`, { metadata: { name: `disk-${uuid}` }, data });
    // Bound before keys had names: the first one opens it.
    const answer = await from(member).issueDiskKeys({ diskUuid: uuid });
    assert.equal(answer.name, '1.0');
    assert.deepEqual(Buffer.from(answer.key), derive(uuid));
  });

  it('a member that reboots while its key is changed gets both; a next key that cannot be had keeps nobody out', async () => {
    await serve();
    const uuid = await joined(worker);
    const rejoin = () => from(worker).issueRejoinTicket({ diskUuid: uuid });
    assert.equal((await rejoin()).nextStateDiskKey.length, 0);
    await setNext(uuid, '1.3');
    const both = await rejoin();
    assert.deepEqual(Buffer.from(both.stateDiskKey), derive(uuid));
    assert.deepEqual(Buffer.from(both.nextStateDiskKey), derive(`${uuid}.3`));
    for (const [next, missing] of [
      ['0.9', 'ERR_DISK_BINDING'],
      ['nonsense', 'ERR_DISK_BINDING'],
      ['7.0', 'ERR_KEY_GENERATION'],
    ] as const) {
      await setNext(uuid, next);
      const answer = await rejoin();
      assert.deepEqual(Buffer.from(answer.stateDiskKey), derive(uuid));
      assert.equal(answer.nextStateDiskKey.length, 0);
      assert.equal((await events()).at(-1)!.nextKeyMissing, missing);
    }
    // A join that is repeated gives what was recorded.
    const { stateDiskKey } = await from(worker).issueJoinTicket(ticket(uuid));
    assert.deepEqual(Buffer.from(stateDiskKey), derive(uuid));
  });

  it('goes back to no earlier key, and says that it cannot use what is recorded', async () => {
    await serve();
    const node = await machine(undefined, closing);
    const uuid = await joined(node);
    await becomeMember(node);
    const client = from(node);
    await setNext(uuid, '1.2');
    await client.issueDiskKeys({ diskUuid: uuid, proven: '1.2' });
    const bad = refusal('FAILED_PRECONDITION', 'ERR_DISK_BINDING');
    for (const next of ['1.1', '1.0', '', '1.2.3', '../1.3']) {
      await setNext(uuid, next);
      await assert.rejects(client.issueDiskKeys({ diskUuid: uuid }), bad, next);
      await assert.rejects(client.issueDiskKeys({ diskUuid: uuid, proven: '1.1' }), bad, next);
    }
    await setNext(uuid, '1.2');
    assert.equal((await client.issueDiskKeys({ diskUuid: uuid })).nextName, '');
  });

  it('under its service account JoinService reads no Secret, makes none and writes to disk bindings only', async () => {
    const forbidden = (error: KubernetesApiError) =>
      error instanceof KubernetesApiError && error.status === 403;
    const map = (name: string, data = {}) => ({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name, namespace: 'kube-system' },
      data,
    });
    await assert.rejects(api.call('GET', `${SYSTEM}/secrets`), forbidden);
    await assert.rejects(api.call('GET', `${SYSTEM}/secrets/asterism-keys`), forbidden);
    const version = `${SYSTEM}/configmaps/asterism-version`;
    await assert.rejects(api.call('PUT', version, map('asterism-version')), forbidden);
    await assert.rejects(api.call('DELETE', version), forbidden);
    for (const name of ['join-config', 'disk-x', `disk-${newUuid()}.1`])
      await assert.rejects(api.call('POST', `${SYSTEM}/configmaps`, map(name)), forbidden);
    const uuid = newUuid();
    const data = { instanceName: 'worker-0', attestationKeyId: 'aa' };
    const binding = await api.call('POST', `${SYSTEM}/configmaps`, map(`disk-${uuid}`, data));
    const path = `${SYSTEM}/configmaps/disk-${uuid}`;
    for (const stolen of [{ instanceName: 'worker-1' }, { attestationKeyId: 'bb' }])
      await assert.rejects(api.call('PUT', path, { ...binding, data: { ...data, ...stolen } }), forbidden);
    await api.call('PUT', path, { ...binding, data: { ...data, key: '1.0' } });
    for (const namespace of ['default', 'kube-system'])
      await assert.rejects(api.call('POST', `/api/v1/namespaces/${namespace}/secrets`, {}), forbidden);
  });
});

interface SelfReview {
  readonly status: { readonly userInfo: { readonly username: string; readonly groups: string[] } };
}

function post(
  kube: Kube,
  path: string,
  body: object,
  tls: { cert: string; key: string },
): Promise<SelfReview> {
  return new Promise((resolve, reject) => {
    const options = { host: kube.host, port: kube.port, path, method: 'POST', ca: kube.ca, ...tls };
    const outgoing = request(
      { ...options, headers: { 'content-type': 'application/json' } },
      async (answer) => {
        const chunks: Buffer[] = [];
        for await (const chunk of answer) chunks.push(chunk);
        resolve(JSON.parse(Buffer.concat(chunks).toString()));
      },
    );
    outgoing.on('error', reject);
    outgoing.end(JSON.stringify(body));
  });
}
