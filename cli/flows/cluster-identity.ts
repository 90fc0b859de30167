import { createHash } from 'node:crypto';
import type { Verdict, Verifier } from '@asterism/attestation/types';
import { concat, equal, isZero } from '@asterism/bytes/bytes';
import { toHex } from '@asterism/bytes/encoding';
import { type Check, PolicyError } from '@asterism/errors/errors';

/** The PCR that tells which cluster a node belongs to: zero before it joins one. */
export const IDENTITY_PCR = 15;

/** SHA-256 PCR 15 (32 bytes) of a node of the cluster: its zero value extended with the SHA-256 of the cluster id. */
export function identityPcr(clusterId: Uint8Array): Uint8Array {
  const digest = createHash('sha256').update(clusterId).digest();
  return new Uint8Array(
    createHash('sha256')
      .update(concat(new Uint8Array(32), digest))
      .digest(),
  );
}

/**
 * A verifier for the node that `init` talks to. Where an earlier init got as far as marking the node, PCR 15 holds
 * the id of the cluster that this workspace makes, which it knows because it chose the measurement salt itself. Any
 * other value is a node of a foreign cluster and gets no secret.
 *
 * @param inner judges everything but PCR 15
 */
export function unmarkedOrMember(inner: Verifier, clusterId: Uint8Array): Verifier {
  const member = identityPcr(clusterId);
  return {
    variant: inner.variant,
    oid: inner.oid,
    async verify(document, nonce, signal): Promise<Verdict> {
      const verdict = await inner.verify(document, nonce, signal);
      const found = verdict.pcrs.get(IDENTITY_PCR);
      const check = judge(found, member);
      const checks = [...verdict.checks, check];
      if (check.outcome === 'failed') {
        throw new PolicyError(
          'ERR_FOREIGN_CLUSTER',
          `the node at the other end belongs to another cluster (${check.detail}); ` +
            'terminate it, or use the workspace that made it',
          { checks },
        );
      }
      return { ...verdict, checks };
    },
  };
}

function judge(found: Uint8Array | undefined, member: Uint8Array): Check {
  const name = `pcr-${IDENTITY_PCR}`;
  if (found === undefined) return { name, outcome: 'failed', detail: 'PCR 15 is not in the quote' };
  if (isZero(found)) return { name, outcome: 'passed', detail: 'zero: the node belongs to no cluster yet' };
  if (equal(found, member)) {
    return { name, outcome: 'passed', detail: 'the node is marked as one of this very cluster' };
  }
  return { name, outcome: 'failed', detail: `PCR 15 is ${toHex(found)}` };
}
