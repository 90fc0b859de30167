import type { RpcLimits } from '@asterism/rpc/connection-host';
import type { API } from '@asterism/rpc/gen/verify_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import type { Attester } from './attester.ts';

/** Of its server: anyone may connect, and a request is a nonce. */
export const LIMITS: RpcLimits = {
  maxRequestBytes: 1024,
  maxResponseBytes: 128 * 1024,
  maxConcurrentCalls: 4,
  maxConnections: 256,
};

/** Handlers of verify.API. */
export function verificationService(attester: Attester): Handlers<typeof API> {
  return {
    async getAttestation({ nonce }, { peer, signal }) {
      return { attestation: await attester.attest(nonce, peer.address, signal) };
    },
  };
}
