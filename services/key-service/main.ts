import { clusterKms } from '@asterism/kms/open';
import { inClusterApi } from '@asterism/kubernetes/api';
import { ClusterCa } from '@asterism/kubernetes/ca';
import { API } from '@asterism/rpc/gen/keyservice_pb';
import { TlsGrpcServer } from '@asterism/rpc/tls-server';
import { AuditLog } from '@asterism/runtime/audit-log';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { runService } from '@asterism/runtime/run-service';
import { Callers } from './callers.ts';
import { readMasterSecret } from './master-secret.ts';
import { DEFAULT_SCOPES } from './scopes.ts';
import { keyService, LIMITS } from './service.ts';

const PORT = 9000;
const CONFIG = '/var/config';
const PKI = '/etc/kubernetes/pki';
const AUDIT_LOG = '/run/state/asterism/audit/key-service.log';
const NAMES = [
  'key-service.kube-system.svc',
  'key-service.kube-system.svc.cluster.local',
  'key-service.kube-system',
];
const CERTIFICATE_MS = 24 * 3_600_000;

await runService({ name: 'key-service', healthPort: 9101 }, async ({ log, registry }) => {
  const keys = clusterKms(await readMasterSecret(CONFIG));
  const api = await inClusterApi(process.env);
  const ca = await ClusterCa.load(PKI);
  const audit = await AuditLog.open(AUDIT_LOG);
  log.info(audit.head, 'audit log opened');
  const server = new TlsGrpcServer({
    ...(await ca.servingCertificate(NAMES, CERTIFICATE_MS)),
    ...LIMITS,
    log,
  });
  server.addService(
    API,
    keyService({
      keys,
      callers: new Callers({ api, reviews: new RateLimiter({ burst: 20, perSecond: 2 }) }),
      scopes: DEFAULT_SCOPES,
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
    broken: () => audit.failure?.message,
    async stop() {
      clearInterval(renewal);
      await server.stop();
      log.info(audit.head, 'audit log closed');
      await audit.close();
    },
  };
});
