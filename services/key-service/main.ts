import { readFile } from 'node:fs/promises';
import { clusterKms } from '@asterism/kms/open';
import { inClusterApi } from '@asterism/kubernetes/api';
import { ClusterCa } from '@asterism/kubernetes/ca';
import { API } from '@asterism/rpc/gen/keyservice_pb';
import { TlsGrpcServer } from '@asterism/rpc/tls-server';
import { AuditLog } from '@asterism/runtime/audit-log';
import { serveHealth } from '@asterism/runtime/health-server';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { stopOnSignal } from '@asterism/runtime/shutdown';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Callers } from './callers.ts';
import { DEFAULT_SCOPES } from './scopes.ts';
import { keyService } from './service.ts';

const PORT = 9000;
const HEALTH_PORT = 9101;
const CONFIG = '/var/config';
const PKI = '/etc/kubernetes/pki';
const AUDIT_LOG = '/run/state/asterism/audit/key-service.log';
const NAMES = [
  'key-service.kube-system.svc',
  'key-service.kube-system.svc.cluster.local',
  'key-service.kube-system',
];
const CERTIFICATE_MS = 24 * 3_600_000;

const log = pino({ name: 'key-service' });
const registry = new Registry();
let missing: string | undefined = 'starting';
await serveHealth({ port: HEALTH_PORT, registry, missing: () => missing });

const key = new Uint8Array(await readFile(`${CONFIG}/mastersecret`));
const salt = new Uint8Array(await readFile(`${CONFIG}/salt`));
if (key.length < 16 || salt.length < 32) throw new Error('the master secret or its salt is too short');
const api = await inClusterApi(process.env);
const ca = await ClusterCa.load(PKI);
const audit = await AuditLog.open(AUDIT_LOG);
const server = new TlsGrpcServer({
  ...(await ca.servingCertificate(NAMES, CERTIFICATE_MS)),
  maxMessageBytes: 64 * 1024,
  log,
});
server.addService(
  API,
  keyService({
    keys: clusterKms({ key, salt }),
    callers: new Callers(api),
    scopes: DEFAULT_SCOPES,
    limiter: new RateLimiter({ burst: 500, perSecond: 200 }),
    audit,
    registry,
  }),
);
await server.listen(PORT);
// The key of the certificate never leaves this process, and none lives longer than a day.
setInterval(async () => {
  try {
    const fresh = await ca.servingCertificate(NAMES, CERTIFICATE_MS);
    server.setCertificate(fresh.cert, fresh.key);
  } catch (err) {
    log.error({ err }, 'the serving certificate was not renewed');
  }
}, CERTIFICATE_MS / 3).unref();
missing = undefined;
log.info({ port: PORT }, 'serving');

stopOnSignal(log, async () => {
  missing = 'stopping';
  await server.stop();
  await audit.close();
});
