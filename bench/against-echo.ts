import { LIMITS } from '@asterism/key-service/service';
import { ClusterCa } from '@asterism/kubernetes/ca';
import { API } from '@asterism/rpc/gen/keyservice_pb';
import { tlsClient } from '@asterism/rpc/tls-client';
import { TlsGrpcServer } from '@asterism/rpc/tls-server';
import { KEY_SERVICE_NAME } from '@asterism/testkit/key-service';
import type { Kube } from '@asterism/testkit/kube';
import type { BenchContext, Row } from './bench.ts';
import { load, median } from './load.ts';

const HOST = '127.0.0.1';
/** Callers with a connection each, as many as an address may have, and the calls that each may have at a time. */
const CALLERS = LIMITS.maxConnectionsPerAddress ?? 1;
const IN_FLIGHT = CALLERS * (LIMITS.maxConcurrentCalls ?? 1);
const ROUNDS = 9;
const DISK = '00000000-0000-4000-8000-000000000000';
const REQUEST = { dataKeyId: DISK, length: 32, onBehalfOf: 'bench-0' };
const ECHO = 'echo';

/**
 * GetDataKey as it runs: TLS, token, scope, limits, and the audit log on the disk before each answer. The echo is the
 * same library with the same messages, headers and TLS, and a handler that does nothing.
 *
 * @param services port of each KeyService, by what its rows are called
 */
export async function againstEcho(
  kube: Kube,
  services: Readonly<Record<string, number>>,
  { quick, progress }: BenchContext,
): Promise<Row[]> {
  await kube.create('/api/v1/namespaces/kube-system/configmaps', {
    metadata: { name: `disk-${DISK}` },
    data: { instanceName: REQUEST.onBehalfOf },
  });
  const ca = await ClusterCa.load(kube.pki);
  const echo = new TlsGrpcServer({
    ...LIMITS,
    ...(await ca.servingCertificate([KEY_SERVICE_NAME], 3_600_000)),
  });
  const callers = (target: number) =>
    Array.from({ length: CALLERS }, () =>
      tlsClient(API, { host: HOST, port: target, ca: kube.ca, serverName: KEY_SERVICE_NAME }),
    );
  const headers = { authorization: `Bearer ${await kube.tokenOf('join-service', 'key-service')}` };
  const first = callers(Object.values(services)[0]!);
  // Its answer is as long as that of the first service.
  const answer = await first[0]!.getDataKey(REQUEST, { headers });
  for (const client of first) client.close();
  echo.addService(API, { getDataKey: async () => answer });
  const { port } = await echo.listen(0, HOST);
  const kinds = Object.entries({ [ECHO]: port, ...services }).map(([name, target]) => ({
    name,
    clients: callers(target),
    rates: [] as number[],
    p99: [] as number[],
    processor: [] as number[],
  }));
  const count = quick ? 1000 : 6000;
  try {
    for (let round = 0; round <= ROUNDS; round++) {
      progress(round === 0 ? 'warming up' : `round ${round} of ${ROUNDS}`);
      for (const { clients, rates, p99, processor } of kinds) {
        globalThis.gc?.();
        const before = process.cpuUsage();
        const found = await load(count, IN_FLIGHT, (n) =>
          clients[n % CALLERS]!.getDataKey(REQUEST, { headers }),
        );
        const { user, system } = process.cpuUsage(before);
        if (round === 0) continue;
        processor.push((user + system) / count);
        rates.push(found.perSecond);
        p99.push(found.p99Ms);
      }
    }
  } finally {
    for (const client of kinds.flatMap(({ clients }) => clients)) client.close();
    await echo.stop(0);
  }
  const [idle, ...measured] = kinds as [(typeof kinds)[0], ...typeof kinds];
  const limit = { what: 'echo, same library and TLS', value: median(idle.rates) };
  const rows = measured.flatMap(({ name, rates, p99, processor }): Row[] => {
    const ratios = rates.map((rate, i) => Math.round((100 * rate) / idle.rates[i]!));
    return [
      {
        what: name,
        value: median(rates),
        unit: '/s',
        limit,
        note: `${IN_FLIGHT} in flight, clients in the same process; by round: ${ratios.join(', ')} %; aim: 90 %`,
      },
      {
        what: `${name}, processor time with its client`,
        value: median(processor),
        unit: 'µs',
        limit: { what: 'echo with its client', value: median(idle.processor) },
        note: 'less is better; other programs on the machine hardly change it',
      },
      { what: `${name} p99`, value: median(p99), unit: 'ms' },
    ];
  });
  return [...rows, { what: 'echo p99', value: median(idle.p99), unit: 'ms' }];
}
