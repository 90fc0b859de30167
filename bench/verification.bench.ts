import { randomBytes } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { toBase64Url } from '@asterism/bytes/encoding';
import { API } from '@asterism/rpc/gen/verify_pb';
import { plainClient } from '@asterism/rpc/plain-client';
import { PlainGrpcServer } from '@asterism/rpc/plain-server';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { startSwtpm } from '@asterism/testkit/swtpm';
import { provideAk } from '@asterism/tpm/ak';
import { AK_HANDLE, Alg } from '@asterism/tpm/constants';
import { withTpm } from '@asterism/tpm/with-tpm';
import { Attester } from '@asterism/verification-service/attester';
import { createHttpServer } from '@asterism/verification-service/http';
import { verificationService } from '@asterism/verification-service/service';
import { Registry } from 'prom-client';
import type { Bench } from './bench.ts';
import { load } from './load.ts';

const HOST = '127.0.0.1';
const IN_FLIGHT = 16;
const ALL_PCRS = Array.from({ length: 24 }, (_, i) => i);

/** Documents per second by gRPC and by HTTP; a TPM quotes one at a time, so its own rate is the limit. */
export default {
  name: 'verification',
  async run({ quick, progress }) {
    await using tpm = await startSwtpm();
    const issuer = createQemuVtpmIssuer({ tpmAddress: tpm.address, eventLogPath: undefined });
    const unlimited = new RateLimiter({ burst: 1e9, perSecond: 1e9 });
    const attester = new Attester(issuer, unlimited, new Registry());
    const server = new PlainGrpcServer();
    server.addService(API, verificationService(attester));
    const { port } = await server.listen(0, HOST);
    const http = createHttpServer(attester, console);
    await new Promise<void>((resolve) => http.listen(0, HOST, resolve));
    const url = `http://${HOST}:${(http.address() as AddressInfo).port}/?nonce=`;
    const client = plainClient(API, { host: HOST, port });
    const nonce = () => new Uint8Array(randomBytes(32));
    const count = quick ? 100 : 800;
    try {
      progress("the TPM's own rate");
      const selection = [{ hash: Alg.SHA256, pcrs: ALL_PCRS }];
      const quotes = await withTpm(
        tpm.address,
        async (open) => {
          await provideAk(open, 'ecc-p256');
          return load(count, 1, () => open.quote(AK_HANDLE, nonce(), selection));
        },
        { timeoutMs: 60_000 },
      );
      const limit = { what: 'quotes of this swtpm, one connection', value: quotes.perSecond };
      progress('gRPC');
      const grpc = await load(count, IN_FLIGHT, () => client.getAttestation({ nonce: nonce() }));
      progress('HTTP');
      const byHttp = await load(count, IN_FLIGHT, async () => {
        const answer = await fetch(`${url}${encodeURIComponent(toBase64Url(nonce()))}`);
        if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
        await answer.arrayBuffer();
      });
      const note = `${IN_FLIGHT} in flight`;
      const inLine = {
        what: `${IN_FLIGHT} quotes one after the other`,
        value: (1000 * IN_FLIGHT) / quotes.perSecond,
      };
      return [
        { what: 'VerificationService, gRPC', value: grpc.perSecond, unit: '/s', limit, note },
        { what: 'VerificationService, gRPC p99', value: grpc.p99Ms, unit: 'ms', limit: inLine },
        { what: 'VerificationService, HTTP', value: byHttp.perSecond, unit: '/s', limit, note },
        { what: 'VerificationService, HTTP p99', value: byHttp.p99Ms, unit: 'ms', limit: inLine },
      ];
    } finally {
      client.close();
      http.close();
      http.closeAllConnections();
      await server.stop(0);
    }
  },
} satisfies Bench;
