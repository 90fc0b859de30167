import { setTimeout as sleep } from 'node:timers/promises';
import type { Verifier } from '@asterism/attestation/types';
import { BusyError, UnreachableError } from '@asterism/errors/errors';
import { atlsClient } from '@asterism/rpc/atls-client';
import { API } from '@asterism/rpc/gen/disk_pb';
import { StatusError } from '@asterism/rpc/status';
import { messageOf } from '../output.ts';

/** Port at which a member's disk-keeper is called. */
export const DISK_PORT = 9998;

/** A node whose disk is to be looked after. */
export interface DiskNode {
  readonly name: string;
  readonly host: string;
  readonly port: number;
}

export interface SyncPlan {
  /** Accepts a member of this very cluster only. */
  readonly verifier: Verifier;
  readonly signal: AbortSignal;
  /** Milliseconds to try for. Default 20,000. */
  readonly patienceMs?: number;
  /** Milliseconds between two tries. Default 2,000. */
  readonly pauseMs?: number;
}

/** What a node has done to its disk. */
export interface SyncedDisk {
  readonly diskUuid: string;
  /** Name of the one key that opens it, as the node has proven. */
  readonly keyName: string;
  readonly changed: boolean;
}

/** The node asks the JoinService and works on its header: seconds, minutes where every control plane is slow. */
const CALL_TIMEOUT_MS = 150_000;

/**
 * Has a node look after its disk.
 *
 * @throws VerificationError | PolicyError what answers is no member of the cluster
 * @throws StatusError the node or its JoinService refused; UnreachableError nobody answers
 */
export async function syncDisk({ name, host, port }: DiskNode, plan: SyncPlan): Promise<SyncedDisk> {
  const { verifier, signal } = plan;
  const deadline = performance.now() + (plan.patienceMs ?? 20_000);
  for (;;) {
    const client = atlsClient(API, { host, port, verifiers: [verifier] });
    try {
      const { diskUuid, keyName, changed } = await client.syncDisk(
        {},
        { timeoutMs: CALL_TIMEOUT_MS, signal },
      );
      return { diskUuid, keyName, changed };
    } catch (error) {
      signal.throwIfAborted();
      if (!mayPass(error) || performance.now() > deadline) throw explained(name, error);
    } finally {
      client.close();
    }
    await sleep(plan.pauseMs ?? 2000, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

function mayPass(error: unknown): boolean {
  return (
    error instanceof UnreachableError ||
    error instanceof BusyError ||
    (error instanceof StatusError && error.status === 'RESOURCE_EXHAUSTED')
  );
}

function explained(name: string, error: unknown): unknown {
  if (!(error instanceof UnreachableError)) return error;
  return new UnreachableError(
    `${name} could not look after its disk: ${messageOf(error)}. Does the node run, and a control plane?`,
    { cause: error },
  );
}
