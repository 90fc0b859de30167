import { randomBytes } from 'node:crypto';
import { judge } from '@asterism/attestation/judge';
import type { Verdict, Verifier } from '@asterism/attestation/types';
import { equal } from '@asterism/bytes/bytes';
import { toUtf8 } from '@asterism/bytes/encoding';
import { type Check, PolicyError, VerificationError } from '@asterism/errors/errors';
import { API } from '@asterism/rpc/gen/verify_pb';
import { plainClient } from '@asterism/rpc/plain-client';
import { EXIT, type ExitCode, exitCodeOf, gravest } from '../exit-codes.ts';
import { messageOf } from '../output.ts';

/** What the evidence of a VerificationService vouches for: nothing but that it is one. */
const USER_DATA = toUtf8('VerifyService');

/** NodePort of the VerificationService's gRPC. */
export const VERIFY_PORT = 30_081;

export interface VerifyTarget {
  /** What the result calls it: a node's name or the given endpoint. */
  readonly name: string;
  readonly host: string;
  readonly port: number;
}

/** What was found of one node. */
export interface NodeVerdict {
  readonly node: string;
  readonly endpoint: string;
  readonly outcome: 'passed' | 'failed' | 'unreachable';
  readonly checks: readonly Check[];
  readonly attestationKeyId?: string;
  /** Why it did not pass. */
  readonly error?: string;
  readonly exitCode: ExitCode;
}

/**
 * Asks a node for evidence over a nonce of ours and judges it. Without TLS: evidence protects itself.
 *
 * @throws VerificationError | PolicyError | UnreachableError
 */
export async function verifyNode(
  target: VerifyTarget,
  verifier: Verifier,
  signal: AbortSignal,
): Promise<Verdict> {
  const client = plainClient(API, { host: target.host, port: target.port, callTimeoutMs: 20_000 });
  try {
    const nonce = new Uint8Array(randomBytes(32));
    const { attestation } = await client.getAttestation({ nonce }, { signal });
    const verdict = await judge(verifier, attestation, nonce, signal);
    const matches = equal(verdict.userData, USER_DATA);
    const check: Check = {
      name: 'user-data',
      outcome: matches ? 'passed' : 'failed',
      detail: matches
        ? 'the evidence was made for verification'
        : 'the evidence was made for another purpose',
    };
    const checks = [...verdict.checks, check];
    if (!matches) {
      throw new VerificationError('ERR_USER_DATA', `${target.name}: ${check.detail}`, { checks });
    }
    return { ...verdict, checks };
  } finally {
    client.close();
  }
}

/** Verifies all targets at once. Two nodes that show one attestation key are one machine: both fail. */
export async function verifyNodes(
  targets: readonly VerifyTarget[],
  verifier: Verifier,
  signal: AbortSignal,
): Promise<NodeVerdict[]> {
  const results = await Promise.all(targets.map((target) => outcomeOf(target, verifier, signal)));
  const seen = new Map<string, number>();
  for (const { attestationKeyId: id } of results) {
    if (id !== undefined) seen.set(id, (seen.get(id) ?? 0) + 1);
  }
  return results.map((result) => {
    const { attestationKeyId: id } = result;
    if (id === undefined || targets.length === 1) return result;
    const own = seen.get(id) === 1;
    const check: Check = {
      name: 'own-machine',
      outcome: own ? 'passed' : 'failed',
      detail: own
        ? 'no other node shows this attestation key'
        : 'another node shows the same attestation key',
    };
    const checks = [...result.checks, check];
    if (own) return { ...result, checks };
    return { ...result, checks, outcome: 'failed', error: check.detail, exitCode: EXIT.evidenceFalse };
  });
}

/** Exit code for the verdicts of all nodes together. */
export function exitCodeOfAll(verdicts: readonly NodeVerdict[]): ExitCode {
  return gravest(verdicts.map((verdict) => verdict.exitCode));
}

async function outcomeOf(
  target: VerifyTarget,
  verifier: Verifier,
  signal: AbortSignal,
): Promise<NodeVerdict> {
  const base = { node: target.name, endpoint: `${target.host}:${target.port}` };
  try {
    const { checks, attestationKeyId } = await verifyNode(target, verifier, signal);
    return { ...base, outcome: 'passed', checks, attestationKeyId, exitCode: EXIT.done };
  } catch (error) {
    signal.throwIfAborted();
    const exitCode = exitCodeOf(error);
    return {
      ...base,
      outcome: exitCode === EXIT.notReachable ? 'unreachable' : 'failed',
      checks: error instanceof VerificationError || error instanceof PolicyError ? error.checks : [],
      error: messageOf(error),
      exitCode,
    };
  }
}
