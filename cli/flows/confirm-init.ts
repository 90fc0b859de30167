import { setTimeout as sleep } from 'node:timers/promises';
import type { Verifier } from '@asterism/attestation/types';
import { type AsterismError, BusyError, UnreachableError } from '@asterism/errors/errors';
import { atlsClient } from '@asterism/rpc/atls-client';
import { API } from '@asterism/rpc/gen/init_pb';
import { StatusError } from '@asterism/rpc/status';

export interface Confirmation {
  readonly host: string;
  readonly port: number;
  readonly initSecret: Uint8Array;
  readonly clusterId: Uint8Array;
  /** Accepts a member of this very cluster only. */
  readonly verifier: Verifier;
  readonly signal: AbortSignal;
  /** Milliseconds to try for. Default 20,000. */
  readonly patienceMs?: number;
  /** Milliseconds between two tries. Default 2,000. */
  readonly pauseMs?: number;
}

const CALL_TIMEOUT_MS = 10_000;

/**
 * Tells the first node that its kubeconfig is on the disk here, so that it stops offering it.
 *
 * @returns why it could not be told: undefined where it was
 * @throws VerificationError | PolicyError what answers is no member of the cluster
 * @throws StatusError the node refused
 */
export async function confirmInit(plan: Confirmation): Promise<string | undefined> {
  const deadline = performance.now() + (plan.patienceMs ?? 20_000);
  for (;;) {
    try {
      await attempt(plan);
      return undefined;
    } catch (error) {
      plan.signal.throwIfAborted();
      if (!mayPass(error)) throw error;
      if (performance.now() > deadline) return error.message;
    }
    await sleep(plan.pauseMs ?? 2000, undefined, { signal: plan.signal }).catch(() =>
      plan.signal.throwIfAborted(),
    );
  }
}

function mayPass(error: unknown): error is AsterismError {
  return (
    error instanceof UnreachableError ||
    error instanceof BusyError ||
    (error instanceof StatusError && error.status === 'RESOURCE_EXHAUSTED')
  );
}

async function attempt(plan: Confirmation): Promise<void> {
  const { host, port, verifier, initSecret, clusterId, signal } = plan;
  const client = atlsClient(API, { host, port, verifiers: [verifier] });
  try {
    await client.confirmInit({ initSecret, clusterId }, { timeoutMs: CALL_TIMEOUT_MS, signal });
  } finally {
    client.close();
  }
}
