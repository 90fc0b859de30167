import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { AsterismError } from '@asterism/errors/errors';
import { API } from '@asterism/rpc/gen/verify_pb';
import { PlainGrpcServer } from '@asterism/rpc/plain-server';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { runService } from '@asterism/runtime/run-service';
import { Attester } from './attester.ts';
import { createHttpServer } from './http.ts';
import { LIMITS, verificationService } from './service.ts';

const GRPC_PORT = 9090;
const HTTP_PORT = 8080;
/** Documents being made or waited for; the TPM makes one at a time. */
const MAX_PENDING = 32;

await runService({ name: 'verification-service', healthPort: 9102 }, async ({ log, registry }) => {
  const { ASTERISM_TPM: tpmAddress, ASTERISM_EVENT_LOG: eventLogPath } = process.env;
  if (tpmAddress === undefined) throw new AsterismError('ERR_ENVIRONMENT', 'ASTERISM_TPM is not set');
  const issuer = createQemuVtpmIssuer({ tpmAddress, eventLogPath, maxPending: MAX_PENDING });
  const attester = new Attester(issuer, new RateLimiter({ burst: 50, perSecond: 20 }), registry);
  const grpc = new PlainGrpcServer({ ...LIMITS, log });
  grpc.addService(API, verificationService(attester));
  await grpc.listen(GRPC_PORT);
  const http = createHttpServer(attester, log);
  await new Promise<void>((resolve, reject) => http.once('error', reject).listen(HTTP_PORT, resolve));
  return {
    async stop() {
      http.close();
      await grpc.stop();
      http.closeAllConnections();
    },
  };
});
