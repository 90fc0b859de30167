import { readFile } from 'node:fs/promises';
import { weakened } from '@asterism/attestation/measurements';
import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { AsterismError } from '@asterism/errors/errors';
import { inClusterApi } from '@asterism/kubernetes/api';
import { ClusterCa } from '@asterism/kubernetes/ca';
import { httpMetadata } from '@asterism/metadata/http-metadata';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/join_pb';
import { AuditLog } from '@asterism/runtime/audit-log';
import { CLUSTER_ID_PCR } from '@asterism/runtime/machine-tpm';
import { HANDSHAKES, RateLimiter } from '@asterism/runtime/rate-limiter';
import { runService } from '@asterism/runtime/run-service';
import { AddressedTpm } from '@asterism/tpm/machine';
import { keyClient } from './key-client.ts';
import { readMeasurements, watchMeasurements } from './measurements-file.ts';
import { refusedHandshakes } from './refused-handshakes.ts';
import { joinService, type OwnNode } from './service.ts';
import { JoinVerifier } from './verifier.ts';

const PORT = 9090;
const CONFIG = '/var/config';
const MEASUREMENTS = `${CONFIG}/measurements`;
const PKI = '/etc/kubernetes/pki';
const AUDIT_LOG = '/run/state/asterism/audit/join-service.log';

await runService({ name: 'join-service', healthPort: 9100 }, async ({ log, registry }) => {
  const { ASTERISM_TPM, ASTERISM_EVENT_LOG, ASTERISM_METADATA, KEY_SERVICE_SERVICE_HOST } = process.env;
  if (ASTERISM_TPM === undefined || ASTERISM_METADATA === undefined)
    throw new AsterismError('ERR_ENVIRONMENT', 'ASTERISM_TPM or ASTERISM_METADATA is not set');
  const audit = await AuditLog.open(AUDIT_LOG);
  log.info(audit.head, 'audit log opened');

  const own = await ownNode(ASTERISM_TPM);
  let measurements = await readMeasurements(MEASUREMENTS);
  const verifier = new JoinVerifier(measurements, own.clusterPcr);
  const unwatch = watchMeasurements(
    MEASUREMENTS,
    (next) => {
      const weaker = weakened(measurements, next);
      measurements = next;
      verifier.update(measurements);
      log.warn({ pcrs: [...next.keys()], noLongerEnforced: weaker }, 'measurements updated');
    },
    (err) => log.error({ err }, 'the new measurements cannot be used; the old ones stay'),
  );

  const keys = keyClient({
    host: KEY_SERVICE_SERVICE_HOST ?? 'key-service.kube-system.svc',
    port: 9000,
    serverName: 'key-service.kube-system.svc',
    ca: await readFile(`${PKI}/ca.crt`, 'utf8'),
    tokenFile: '/var/run/secrets/key-service/token',
  });
  const server = new AtlsGrpcServer({
    issuer: createQemuVtpmIssuer({ tpmAddress: ASTERISM_TPM, eventLogPath: ASTERISM_EVENT_LOG }),
    verifiers: [verifier],
    maxRequestBytes: 16 * 1024,
    maxResponseBytes: 256 * 1024,
    handshakes: new RateLimiter(HANDSHAKES),
    log,
    onRefused: refusedHandshakes(audit, registry),
  });
  server.addService(
    API,
    joinService({
      api: await inClusterApi(process.env),
      metadata: httpMetadata(ASTERISM_METADATA),
      dataKeys: keys.dataKeys,
      own,
      ca: await ClusterCa.load(PKI),
      pki: PKI,
      measurementSalt: new Uint8Array(await readFile(`${CONFIG}/measurementSalt`)),
      limiter: new RateLimiter({ burst: 20, perSecond: 1 }),
      audit,
      registry,
    }),
  );
  await server.listen(PORT);
  return {
    broken: () => audit.failure?.message,
    async stop() {
      unwatch();
      await server.stop();
      keys.close();
      log.info(audit.head, 'audit log closed');
      await audit.close();
    },
  };
});

/** Members of this cluster have the same PCR 15 as the node that this runs on. */
async function ownNode(tpmAddress: string): Promise<OwnNode> {
  const tpm = new AddressedTpm(tpmAddress, 'ecc-p256');
  const clusterPcr = (await tpm.readPcrs()).get(CLUSTER_ID_PCR);
  if (clusterPcr === undefined)
    throw new AsterismError('ERR_TPM_PCR', 'the TPM has no SHA-256 bank with PCR 15');
  return { clusterPcr, attestationKeyId: await tpm.attestationKeyId() };
}
