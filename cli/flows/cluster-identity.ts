import { CLUSTER_ID_PCR, clusterIdPcr } from '@asterism/attestation/cluster-id';
import type { Verdict, Verifier } from '@asterism/attestation/types';
import { equal, isZero } from '@asterism/bytes/bytes';
import { toHex } from '@asterism/bytes/encoding';
import { type Check, PolicyError } from '@asterism/errors/errors';

/**
 * A verifier for the node that `init` talks to. Where an earlier init got as far as marking the node, PCR 15 holds
 * the id of the cluster that this workspace makes, which it knows because it chose the measurement salt itself. Any
 * other value is a node of a foreign cluster and gets no secret.
 *
 * @param inner judges everything but PCR 15
 */
export async function unmarkedOrMember(inner: Verifier, clusterId: Uint8Array): Promise<Verifier> {
  const member = await clusterIdPcr(clusterId);
  return {
    variant: inner.variant,
    oid: inner.oid,
    async verify(document, nonce, signal): Promise<Verdict> {
      const verdict = await inner.verify(document, nonce, signal);
      const found = verdict.pcrs.get(CLUSTER_ID_PCR);
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
  const name = `pcr-${CLUSTER_ID_PCR}`;
  if (found === undefined) return { name, outcome: 'failed', detail: 'PCR 15 is not in the quote' };
  if (isZero(found)) return { name, outcome: 'passed', detail: 'zero: the node belongs to no cluster yet' };
  if (equal(found, member)) {
    return { name, outcome: 'passed', detail: 'the node is marked as one of this very cluster' };
  }
  return { name, outcome: 'failed', detail: `PCR 15 is ${toHex(found)}` };
}
