import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Verdict } from '@asterism/attestation/types';
import { joinService } from '@asterism/join-service/service';
import { ClusterCa } from '@asterism/kubernetes/ca';
import type { InstanceMetadata, Metadata } from '@asterism/metadata/types';
import { type AtlsClient, atlsClient } from '@asterism/rpc/atls-client';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/join_pb';
import { API as KEYS } from '@asterism/rpc/gen/keyservice_pb';
import { tlsClient } from '@asterism/rpc/tls-client';
import { AuditLog } from '@asterism/runtime/audit-log';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { KEY_SERVICE_NAME, startKeyService } from '@asterism/testkit/key-service';
import { startKube } from '@asterism/testkit/kube';
import { describeVersion, kubeletCsr, SYSTEM_NAMESPACE } from '@asterism/testkit/services';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { Registry } from 'prom-client';
import type { Bench } from './bench.ts';
import { load } from './load.ts';
import { opensslSpeed } from './machine.ts';

const HOST = '127.0.0.1';
const CLIENTS = 64;

/**
 * IssueJoinTicket of workers over 64 aTLS connections, each ticket for a new disk: two objects written to etcd, two keys
 * from the KeyService, a certificate signed, both audit logs on the disk. Evidence is faked (the `atls` bench is about
 * that): the connections stand before the clock runs. The limit is what the API server takes of such writes by itself.
 */
export default {
  name: 'join',
  async run({ quick, progress }) {
    progress('starting a Kubernetes API');
    await using kube = await startKube();
    await using folder = await temporaryFolder();
    const deploy = join(import.meta.dirname, '../deploy');
    for (const name of ['key-service', 'join-service'])
      await kube.apply(await readFile(join(deploy, name, `${name}.yaml`), 'utf8'));
    await describeVersion(kube);
    const master = { key: new Uint8Array(32).fill(1), salt: new Uint8Array(32).fill(2) };
    await using keys = await startKeyService(kube, master, folder.file('keys.log'));
    const keyClient = tlsClient(KEYS, {
      host: HOST,
      port: keys.port,
      ca: kube.ca,
      serverName: KEY_SERVICE_NAME,
    });
    const headers = { authorization: `Bearer ${await kube.tokenOf('join-service', 'key-service')}` };
    const audit = await AuditLog.open(folder.file('join.log'));
    const server = new AtlsGrpcServer({
      issuer: fakeIssuer(),
      verifiers: [fakeVerifier()],
      maxPendingPerAddress: CLIENTS,
      maxConnectionsPerAddress: CLIENTS,
    });
    const api = await kube.as('join-service');
    server.addService(
      API,
      joinService({
        api,
        metadata,
        dataKeys: ({ id, generation, onBehalfOf }, signal) =>
          keyClient.getDataKey({ dataKeyId: id, length: 32, generation, onBehalfOf }, { headers, signal }),
        own: { clusterPcr: new Uint8Array(32), attestationKeyId: '' },
        ca: await ClusterCa.load(kube.pki),
        pki: kube.pki,
        measurementSalt: new Uint8Array(32),
        limiter: new RateLimiter({ burst: 1e9, perSecond: 1e9 }),
        audit,
        registry: new Registry(),
      }),
    );
    const { port } = await server.listen(0, HOST);
    const clients: AtlsClient<typeof API>[] = [];
    try {
      progress(`${CLIENTS} mutual aTLS connections`);
      for (let i = 0; i < CLIENTS; i++) {
        const client = atlsClient(API, {
          host: HOST,
          port,
          issuer: fakeIssuer(),
          verifiers: [fakeVerifier()],
        });
        clients.push(client);
        const peer: Verdict | undefined = await client.peer();
        if (peer === undefined) throw new Error('no evidence');
      }
      const certificateRequest = kubeletCsr('worker-0', HOST);
      let disks = 0;
      const issue = (n: number) =>
        clients[n % CLIENTS]!.issueJoinTicket({ diskUuid: uuid(disks++), certificateRequest });
      const count = quick ? 200 : 1500;
      await load(CLIENTS, CLIENTS, issue);
      progress('writes to the API server');
      const writes = await load(count, CLIENTS, (n) =>
        api.call('POST', `${SYSTEM_NAMESPACE}/configmaps`, {
          metadata: { name: `limit-${n}` },
          data: { instanceName: 'x' },
        }),
      );
      progress('tickets');
      const { perSecond, p99Ms } = await load(count, CLIENTS, issue);
      return [
        {
          what: 'IssueJoinTicket',
          value: perSecond,
          unit: '/s',
          limit: { what: 'ConfigMaps that it creates', value: writes.perSecond },
          note: `${CLIENTS} clients in flight, real kube-apiserver, etcd and KeyService`,
        },
        {
          what: 'IssueJoinTicket p99',
          value: p99Ms,
          unit: 'ms',
          limit: { what: 'p99 of such a ConfigMap', value: writes.p99Ms },
        },
        {
          what: 'openssl speed: RSA-2048 signatures',
          value: opensslSpeed('rsa2048').sign,
          unit: '/s',
          note: 'one core; the CA signs one certificate for each ticket',
        },
      ];
    } finally {
      for (const client of clients) client.close();
      keyClient.close();
      await server.stop(0);
      await audit.close();
    }
  },
} satisfies Bench;

const worker: InstanceMetadata = {
  name: 'worker-0',
  providerId: 'local://worker-0',
  role: 'Worker',
  vpcIp: HOST,
  secondaryIpRange: '',
  aliasIpRanges: [],
};
const metadata: Metadata = {
  self: async () => worker,
  list: async () => [worker],
  loadBalancerEndpoint: async () => '10.77.1.1',
  initSecretHash: async () => '',
};

const uuid = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
