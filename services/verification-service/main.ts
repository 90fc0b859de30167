import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { API } from '@asterism/rpc/gen/verify_pb';
import { PlainGrpcServer } from '@asterism/rpc/plain-server';
import { serveHealth } from '@asterism/runtime/health-server';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { stopOnSignal } from '@asterism/runtime/shutdown';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { createHttpServer } from './http.ts';
import { Attester, verificationService } from './service.ts';

const GRPC_PORT = 9090;
const HTTP_PORT = 8080;
const HEALTH_PORT = 9102;

const log = pino({ name: 'verification-service' });
const registry = new Registry();
let missing: string | undefined = 'starting';
await serveHealth({ port: HEALTH_PORT, registry, missing: () => missing });

const { ASTERISM_TPM: tpmAddress, ASTERISM_EVENT_LOG: eventLogPath } = process.env;
if (tpmAddress === undefined) throw new Error('ASTERISM_TPM is not set');
const issuer = createQemuVtpmIssuer({ tpmAddress, eventLogPath, maxPending: 32 });
const attester = new Attester(issuer, new RateLimiter({ burst: 50, perSecond: 20 }), registry);
const grpc = new PlainGrpcServer({ maxMessageBytes: 128 * 1024, maxConnections: 256, log });
grpc.addService(API, verificationService(attester));
await grpc.listen(GRPC_PORT);
const http = createHttpServer(attester, log);
await new Promise<void>((resolve) => http.listen(HTTP_PORT, resolve));
missing = undefined;
log.info({ grpc: GRPC_PORT, http: HTTP_PORT }, 'serving');

stopOnSignal(log, async () => {
  missing = 'stopping';
  http.close();
  await grpc.stop();
  http.closeAllConnections();
});
