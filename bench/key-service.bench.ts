import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LIMITS } from '@asterism/key-service/service';
import { ClusterCa } from '@asterism/kubernetes/ca';
import { API } from '@asterism/rpc/gen/keyservice_pb';
import { tlsClient } from '@asterism/rpc/tls-client';
import { TlsGrpcServer } from '@asterism/rpc/tls-server';
import { KEY_SERVICE_NAME, startKeyService } from '@asterism/testkit/key-service';
import { startKube } from '@asterism/testkit/kube';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import type { Bench } from './bench.ts';
import { load, median } from './load.ts';

const HOST = '127.0.0.1';
/** Callers with a connection each, as many as an address may have, and the calls that each may have at a time. */
const CALLERS = LIMITS.maxConnectionsPerAddress ?? 1;
const IN_FLIGHT = CALLERS * (LIMITS.maxConcurrentCalls ?? 1);
const ROUNDS = 9;
const DISK = '00000000-0000-4000-8000-000000000000';
const MACHINE = 'worker-0';
const REQUEST = { dataKeyId: DISK, length: 32, onBehalfOf: MACHINE };

/**
 * GetDataKey as it runs: TLS, token, scope, limits, derivation, and the audit log on the disk before each answer. The
 * echo is the same library with the same messages, headers and TLS, and a handler that does nothing.
 */
export default {
  name: 'key-service',
  async run({ quick, progress }) {
    progress('starting a Kubernetes API');
    await using kube = await startKube();
    await using folder = await temporaryFolder();
    const deploy = join(import.meta.dirname, '../deploy');
    for (const name of ['key-service', 'join-service'])
      await kube.apply(await readFile(join(deploy, name, `${name}.yaml`), 'utf8'));
    const path = '/api/v1/namespaces/kube-system/configmaps';
    await kube.create(path, { metadata: { name: `disk-${DISK}` }, data: { instanceName: MACHINE } });
    const master = { key: new Uint8Array(32).fill(1), salt: new Uint8Array(32).fill(2) };
    await using service = await startKeyService(kube, master, folder.file('audit.log'));
    const ca = await ClusterCa.load(kube.pki);
    const certificate = await ca.servingCertificate([KEY_SERVICE_NAME], 3_600_000);
    const echo = new TlsGrpcServer({ ...LIMITS, ...certificate });
    const dataKey = new Uint8Array(32);
    echo.addService(API, { getDataKey: async () => ({ dataKey }) });
    const { port } = await echo.listen(0, HOST);
    const callers = (target: number) =>
      Array.from({ length: CALLERS }, () =>
        tlsClient(API, { host: HOST, port: target, ca: kube.ca, serverName: KEY_SERVICE_NAME }),
      );
    const clients = { service: callers(service.port), echo: callers(port) };
    const ask = (kind: keyof typeof clients) => (n: number) =>
      clients[kind][n % CALLERS]!.getDataKey(REQUEST, { headers });
    const headers = { authorization: `Bearer ${await kube.tokenOf('join-service', 'key-service')}` };
    const rates = { service: [] as number[], echo: [] as number[] };
    const p99 = { service: [] as number[], echo: [] as number[] };
    const processor = { service: [] as number[], echo: [] as number[] };
    const count = quick ? 1000 : 6000;
    try {
      for (const kind of ['echo', 'service'] as const) await load(count, IN_FLIGHT, ask(kind));
      for (let round = 1; round <= ROUNDS; round++) {
        progress(`round ${round} of ${ROUNDS}`);
        for (const kind of ['echo', 'service'] as const) {
          globalThis.gc?.();
          const before = process.cpuUsage();
          const found = await load(count, IN_FLIGHT, ask(kind));
          const { user, system } = process.cpuUsage(before);
          processor[kind].push((user + system) / count);
          rates[kind].push(found.perSecond);
          p99[kind].push(found.p99Ms);
        }
      }
    } finally {
      for (const client of [...clients.service, ...clients.echo]) client.close();
      await echo.stop(0);
    }
    const ratios = rates.service.map((rate, i) => Math.round((100 * rate) / rates.echo[i]!));
    const limit = { what: 'echo, same library and TLS', value: median(rates.echo) };
    return [
      {
        what: 'GetDataKey',
        value: median(rates.service),
        unit: '/s',
        limit,
        note: `${IN_FLIGHT} in flight, clients in the same process; by round: ${ratios.join(', ')} %; aim: 90 %`,
      },
      {
        what: 'GetDataKey, processor time with its client',
        value: median(processor.service),
        unit: 'µs',
        limit: { what: 'echo with its client', value: median(processor.echo) },
        note: 'less is better; other programs on the machine hardly change it',
      },
      { what: 'GetDataKey p99', value: median(p99.service), unit: 'ms' },
      { what: 'echo p99', value: median(p99.echo), unit: 'ms' },
    ];
  },
} satisfies Bench;
