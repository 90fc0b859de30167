import { readFile } from 'node:fs/promises';
import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { QemuVtpmVerifier } from '@asterism/attestation/variants/qemu-vtpm/verifier';
import { inClusterApi } from '@asterism/kubernetes/api';
import { ClusterCa } from '@asterism/kubernetes/ca';
import { httpMetadata } from '@asterism/metadata/http-metadata';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/join_pb';
import { AuditLog } from '@asterism/runtime/audit-log';
import { serveHealth } from '@asterism/runtime/health-server';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { stopOnSignal } from '@asterism/runtime/shutdown';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { keyClient } from './key-client.ts';
import { readMeasurements, watchMeasurements } from './measurements-file.ts';
import { joinService } from './service.ts';

const PORT = 9090;
const HEALTH_PORT = 9100;
const CONFIG = '/var/config';
const PKI = '/etc/kubernetes/pki';
const AUDIT_LOG = '/run/state/asterism/audit/join-service.log';

const log = pino({ name: 'join-service' });
const registry = new Registry();
let missing: string | undefined = 'starting';
await serveHealth({ port: HEALTH_PORT, registry, missing: () => missing });

const {
  ASTERISM_TPM: tpmAddress,
  ASTERISM_EVENT_LOG: eventLogPath,
  ASTERISM_METADATA: metadataAddress,
} = process.env;
if (tpmAddress === undefined || metadataAddress === undefined)
  throw new Error('ASTERISM_TPM or ASTERISM_METADATA is not set');
const verifier = new QemuVtpmVerifier({ measurements: await readMeasurements(`${CONFIG}/measurements`) });
const unwatch = watchMeasurements(
  `${CONFIG}/measurements`,
  (measurements) => verifier.update({ measurements }),
  log,
);
const audit = await AuditLog.open(AUDIT_LOG);
const keys = keyClient({
  host: process.env.KEY_SERVICE_SERVICE_HOST ?? 'key-service.kube-system.svc',
  port: 9000,
  serverName: 'key-service.kube-system.svc',
  ca: await readFile(`${PKI}/ca.crt`, 'utf8'),
  tokenFile: '/var/run/secrets/key-service/token',
});
const server = new AtlsGrpcServer({
  issuer: createQemuVtpmIssuer({ tpmAddress, eventLogPath }),
  verifiers: [verifier],
  maxMessageBytes: 256 * 1024,
  log,
});
server.addService(
  API,
  joinService({
    api: await inClusterApi(process.env),
    metadata: httpMetadata(metadataAddress),
    dataKeys: keys.dataKeys,
    ca: await ClusterCa.load(PKI),
    pki: PKI,
    measurementSalt: new Uint8Array(await readFile(`${CONFIG}/measurementSalt`)),
    limiter: new RateLimiter({ burst: 20, perSecond: 1 }),
    audit,
    registry,
  }),
);
await server.listen(PORT);
missing = undefined;
log.info({ port: PORT }, 'serving');

stopOnSignal(log, async () => {
  missing = 'stopping';
  unwatch();
  await server.stop();
  keys.close();
  await audit.close();
});
