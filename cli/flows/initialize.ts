import { setTimeout as sleep } from 'node:timers/promises';
import type { Verdict, Verifier } from '@asterism/attestation/types';
import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import { atlsClient } from '@asterism/rpc/atls-client';
import { API, type InitRequestSchema, type InitResponse } from '@asterism/rpc/gen/init_pb';
import { StatusError } from '@asterism/rpc/status';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { messageOf } from '../output.ts';

export interface InitPlan {
  readonly host: string;
  readonly port: number;
  /** Name of the first node, for messages. */
  readonly node: string;
  readonly request: MessageInitShape<typeof InitRequestSchema>;
  /** Judges the node before anything is sent to it. */
  readonly verifier: Verifier;
  readonly signal: AbortSignal;
  /** Milliseconds that the node may stay unreachable without a sign of life. */
  readonly patienceMs: number;
  /** Milliseconds between two tries. Default 2,000. */
  readonly pauseMs?: number;
  onPeer(verdict: Verdict | undefined): void;
  onProgress(progress: {
    readonly phase: string;
    readonly state: string;
    readonly number: number;
    readonly total: number;
  }): void;
  onLog(line: string): void;
  onRetry(why: string): void;
}

/** Longest init that is waited for: images are pulled and a control plane starts, on a small machine. */
const INIT_TIMEOUT_MS = 60 * 60_000;
/** The node's keep-alive finds out within 25 s. */
const GHOST_MS = 60_000;

/**
 * Initialises the cluster on its first node. Init is a saved sequence of phases, so a connection that breaks is
 * made anew and the call repeated; it goes on where the node was.
 *
 * @throws VerificationError | PolicyError the node is not what the configuration expects; nothing was sent to it
 * @throws UnreachableError no node answered within the patience
 * @throws AsterismError the node refused or failed; its own words
 */
export async function initialize(plan: InitPlan): Promise<InitResponse> {
  let alive = performance.now();
  let cut = Number.NEGATIVE_INFINITY;
  for (;;) {
    try {
      return await attempt(plan, () => {
        alive = performance.now();
      });
    } catch (error) {
      plan.signal.throwIfAborted();
      if (error instanceof UnreachableError) cut = performance.now();
      else if (!isOwnGhost(error, cut)) throw error;
      if (performance.now() - alive > plan.patienceMs) {
        throw new UnreachableError(
          `the first node (${plan.host}:${plan.port}) gave no sign of life for ${Math.round(plan.patienceMs / 1000)} s; ` +
            `see what it says with \`asterism local logs ${plan.node}\`, then run the same command again`,
          { cause: error },
        );
      }
      plan.onRetry(messageOf(error));
    }
    await sleep(plan.pauseMs ?? 2000, undefined, { signal: plan.signal }).catch(() =>
      plan.signal.throwIfAborted(),
    );
  }
}

/** Where a connection broke, the node takes a while to see that its caller, which was this command, is gone. */
function isOwnGhost(error: unknown, cut: number): boolean {
  return error instanceof StatusError && error.code === 'ERR_NODE_BUSY' && performance.now() - cut < GHOST_MS;
}

async function attempt(plan: InitPlan, alive: () => void): Promise<InitResponse> {
  const client = atlsClient(API, { host: plan.host, port: plan.port, verifiers: [plan.verifier] });
  try {
    plan.onPeer(await client.peer());
    alive();
    const options = { timeoutMs: INIT_TIMEOUT_MS, signal: plan.signal };
    for await (const { kind } of client.initStream(plan.request, options)) {
      alive();
      if (kind.case === 'progress') plan.onProgress(kind.value);
      else if (kind.case === 'log') plan.onLog(kind.value);
      else if (kind.case === 'done') return kind.value;
    }
    throw new AsterismError(
      'ERR_INIT_ENDED',
      'the node ended the conversation without saying that the cluster is made; run init again',
    );
  } finally {
    client.close();
  }
}
