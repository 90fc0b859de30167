import { setTimeout as sleep } from 'node:timers/promises';
import type { Verifier } from '@asterism/attestation/types';
import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import { atlsClient } from '@asterism/rpc/atls-client';
import { API } from '@asterism/rpc/gen/recover_pb';
import { messageOf } from '../output.ts';

/** Port at which a node that cannot open its disk waits for help. */
export const RECOVERY_PORT = 9999;

/** Where a node is told to get its disk key. */
export interface RecoveryHome {
  readonly kmsUri: string;
  readonly storageUri: string;
  readonly kmsCredentials?: Uint8Array;
}

export interface RecoverPlan {
  readonly targets: readonly { readonly name: string; readonly host: string; readonly port: number }[];
  readonly verifier: Verifier;
  /** Tried one after the other: while keys are rotated, a disk has its key from one of two. */
  readonly homes: readonly RecoveryHome[];
  readonly signal: AbortSignal;
  /** Milliseconds to wait for a node to ask, counted anew from each node that was recovered. */
  readonly patienceMs: number;
  /** Milliseconds between two tries. Default 2,000. */
  readonly pauseMs?: number;
  onRecovered(name: string): void;
  onWaiting(names: readonly string[]): void;
}

export interface RecoverResult {
  readonly recovered: readonly string[];
  /** Did not ask for help in time: they run, are stopped, or rejoined by the help of one that was recovered. */
  readonly silent: readonly string[];
}

/**
 * Gives every control plane that waits for it the way to its disk key. A node answers only after it has opened its
 * disk with the derived key, so success means that the key was the right one.
 *
 * @throws VerificationError | PolicyError a node is not what the configuration expects; it got nothing
 * @throws AsterismError a node refused, for example because the master secret is another cluster's
 */
export async function recoverNodes(plan: RecoverPlan): Promise<RecoverResult> {
  const waiting = new Set(plan.targets);
  const recovered: string[] = [];
  let lastSuccess = performance.now();
  while (waiting.size > 0) {
    for (const target of waiting) {
      if (!(await recoverOne(plan, target.host, target.port))) continue;
      waiting.delete(target);
      recovered.push(target.name);
      lastSuccess = performance.now();
      plan.onRecovered(target.name);
    }
    if (waiting.size === 0 || performance.now() - lastSuccess > plan.patienceMs) break;
    plan.onWaiting([...waiting].map((target) => target.name));
    await sleep(plan.pauseMs ?? 2000, undefined, { signal: plan.signal }).catch(() =>
      plan.signal.throwIfAborted(),
    );
  }
  return { recovered, silent: [...waiting].map((target) => target.name) };
}

/** @returns false where no node asks for help at this address */
async function recoverOne(plan: RecoverPlan, host: string, port: number): Promise<boolean> {
  const client = atlsClient(API, { host, port, verifiers: [plan.verifier] });
  try {
    await client.peer();
  } catch (error) {
    plan.signal.throwIfAborted();
    client.close();
    if (error instanceof UnreachableError) return false;
    throw error;
  }
  try {
    // From here on silence is a failure: the node has the secret's way and must say what became of it.
    const failures: unknown[] = [];
    for (const home of plan.homes) {
      try {
        await client.recover(home, { signal: plan.signal, timeoutMs: 120_000 });
        return true;
      } catch (error) {
        plan.signal.throwIfAborted();
        failures.push(error);
      }
    }
    throw failures.length === 1 ? failures[0] : neither(failures);
  } finally {
    client.close();
  }
}

/** While keys are rotated one of the two must fail, and which of them matters is for a person to see. */
function neither(failures: readonly unknown[]): AsterismError {
  return new AsterismError(
    'ERR_RECOVERY',
    `neither the next key home nor the present one opens the disk. Next: ${messageOf(failures[0])}. Present: ${messageOf(failures[1])}`,
    { cause: new AggregateError(failures) },
  );
}
