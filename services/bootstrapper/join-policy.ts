import {
  compareMeasurements,
  type Measurements,
  parseMeasurements,
  renderMeasurements,
  withPcr,
} from '@asterism/attestation/measurements';
import { ParseError, PolicyError } from '@asterism/errors/errors';
import { StatusError } from '@asterism/rpc/status';
import { CLUSTER_ID_PCR } from '@asterism/runtime/machine-tpm';
import type { JoinPolicy } from './initializer.ts';

/**
 * What joining nodes must meet is what the caller says; without a word of the caller (an older client) it is what
 * this node itself measured. Either way PCR 15 must be zero: a joining node is in no cluster yet. Measurements
 * that this node would not meet are refused: nobody could ever join, this node after a reboot among them.
 */
export const joinPolicy: JoinPolicy = {
  settle(order, pcrs) {
    const measurements =
      order.joinMeasurements === undefined
        ? ownMeasurements(pcrs, order.enforcedPcrs)
        : readMeasurements(order.joinMeasurements);
    const withoutMembership = withPcr(measurements, CLUSTER_ID_PCR, undefined);
    const checks = compareMeasurements(withoutMembership, pcrs);
    const failed = checks.filter(({ outcome }) => outcome === 'failed');
    if (failed.length > 0) {
      throw new PolicyError(
        'ERR_JOIN_MEASUREMENTS',
        `this node does not meet join_measurements (${failed.map(({ name }) => name).join(', ')}): ` +
          'a cluster that no node can join is not made',
        { checks },
      );
    }
    return JSON.stringify(renderMeasurements(withPcr(measurements, CLUSTER_ID_PCR, new Uint8Array(32))));
  },
};

function readMeasurements(text: string): Measurements {
  try {
    return parseMeasurements(JSON.parse(text));
  } catch (cause) {
    const why = cause instanceof ParseError ? cause.message : 'not JSON';
    throw new StatusError('INVALID_ARGUMENT', 'ERR_INIT_REQUEST', `join_measurements refused: ${why}`, {
      cause,
    });
  }
}

/** PCRs that differ between machines that booted the same: firmware actions and the like. */
const UNSTABLE_PCRS = [1, 10];

function ownMeasurements(pcrs: ReadonlyMap<number, Uint8Array>, enforced: readonly number[]): Measurements {
  const missing = enforced.filter((index) => !pcrs.has(index) || UNSTABLE_PCRS.includes(index));
  if (missing.length > 0) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      'ERR_INIT_REQUEST',
      `enforced_pcrs: PCR ${missing.join(', ')} cannot be enforced`,
    );
  }
  return new Map(
    [...pcrs]
      .filter(([index]) => !UNSTABLE_PCRS.includes(index))
      .map(([index, expected]) => [index, { expected, warnOnly: !enforced.includes(index) }]),
  );
}
