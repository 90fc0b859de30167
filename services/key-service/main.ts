import { openKeyHome } from '@asterism/kms/open';
import { inClusterApi } from '@asterism/kubernetes/api';
import { ClusterCa } from '@asterism/kubernetes/ca';
import { API } from '@asterism/rpc/gen/keyservice_pb';
import { TlsGrpcServer } from '@asterism/rpc/tls-server';
import { AuditLog } from '@asterism/runtime/audit-log';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { runService } from '@asterism/runtime/run-service';
import { Callers } from './callers.ts';
import { followKeyConfiguration } from './configuration.ts';
import { KeyHomes } from './key-homes.ts';
import { keyMetrics } from './metrics.ts';
import { rewrapHomes } from './rewrap-homes.ts';
import { followRotation } from './rotation.ts';
import { defaultScopes } from './scopes.ts';
import { keyService, LIMITS } from './service.ts';

const PORT = 9000;
const PKI = '/etc/kubernetes/pki';
const AUDIT_LOG = '/run/state/asterism/audit/key-service.log';
const NAMES = [
  'key-service.kube-system.svc',
  'key-service.kube-system.svc.cluster.local',
  'key-service.kube-system',
];
const CERTIFICATE_MS = 24 * 3_600_000;

await runService({ name: 'key-service', healthPort: 9101 }, async ({ log, registry }) => {
  const api = await inClusterApi(process.env);
  const ca = await ClusterCa.load(PKI);
  const audit = await AuditLog.open(AUDIT_LOG);
  log.info(audit.head, 'audit log opened');
  const stopping = new AbortController();
  const { observer } = keyMetrics(registry, () => homes);
  const homes = new KeyHomes({
    open: (configuration) => openKeyHome({ ...configuration, kubernetes: api, observer }),
    log,
  });
  const following = followKeyConfiguration({
    api,
    apply: (configuration, version) => homes.configure(configuration, version),
    log,
    signal: stopping.signal,
  });
  const rotating = followRotation({
    api,
    rewrap: (generation) => rewrapHomes(homes.configuration, api, generation),
    audit,
    log,
    signal: stopping.signal,
  });
  const server = new TlsGrpcServer({
    ...(await ca.servingCertificate(NAMES, CERTIFICATE_MS)),
    ...LIMITS,
    log,
  });
  server.addService(
    API,
    keyService({
      homes,
      callers: new Callers({ api, reviews: new RateLimiter({ burst: 20, perSecond: 2 }) }),
      scopes: defaultScopes(api),
      limiter: new RateLimiter({ burst: 500, perSecond: 200 }),
      audit,
      registry,
    }),
  );
  await server.listen(PORT);
  // The key of the certificate never leaves this process, and none lives longer than a day.
  const renewal = setInterval(async () => {
    try {
      const fresh = await ca.servingCertificate(NAMES, CERTIFICATE_MS);
      server.setCertificate(fresh.cert, fresh.key);
    } catch (err) {
      log.error({ err }, 'the serving certificate was not renewed');
    }
  }, CERTIFICATE_MS / 3);
  return {
    missing: () => (homes.generation === 0 ? 'no key home is open' : undefined),
    broken: () => audit.failure?.message,
    async stop() {
      clearInterval(renewal);
      stopping.abort();
      await Promise.all([following, rotating]);
      await server.stop();
      await homes.close();
      log.info(audit.head, 'audit log closed');
      await audit.close();
    },
  };
});
