import type { API } from '@asterism/rpc/gen/verify_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import type { Attester } from './attester.ts';

/** Handlers of verify.API. */
export function verificationService(attester: Attester): Handlers<typeof API> {
  return {
    async getAttestation({ nonce }, { peer, signal }) {
      return { attestation: await attester.attest(nonce, peer.address, signal) };
    },
  };
}
