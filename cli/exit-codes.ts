import { AsterismError, PolicyError, UnreachableError, VerificationError } from '@asterism/errors/errors';

/** What the exit code of every command says. */
export const EXIT = {
  done: 0,
  /** Wrong usage, or a failure of another kind than those below. */
  failure: 1,
  /** Evidence is false: a signature, binding or hash does not hold. */
  evidenceFalse: 2,
  /** Evidence is genuine, but not what the policy allows. */
  policyNotMet: 3,
  /** A peer, file or program did not answer. */
  notReachable: 4,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

const UNREACHABLE_SYSTEM_CODES = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'ENETDOWN',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
]);

/**
 * The exit code for an error. The outermost error of a telling class decides; where none has one, the first of its
 * causes does. Several errors at once count as the gravest: false evidence, then policy, then reachability.
 */
export function exitCodeOf(error: unknown): ExitCode {
  const seen = new Set<unknown>();
  for (let at = error; at instanceof Error && !seen.has(at); at = at.cause) {
    seen.add(at);
    if (at instanceof VerificationError) return EXIT.evidenceFalse;
    if (at instanceof PolicyError) return EXIT.policyNotMet;
    if (at instanceof UnreachableError) return EXIT.notReachable;
    if (at instanceof AggregateError) return gravest(at.errors.map(exitCodeOf));
    const code = (at as NodeJS.ErrnoException).code;
    if (!(at instanceof AsterismError) && typeof code === 'string' && UNREACHABLE_SYSTEM_CODES.has(code)) {
      return EXIT.notReachable;
    }
  }
  return EXIT.failure;
}

/** The gravest of several outcomes; `done` for none. */
export function gravest(codes: readonly ExitCode[]): ExitCode {
  const order: readonly ExitCode[] = [
    EXIT.evidenceFalse,
    EXIT.policyNotMet,
    EXIT.failure,
    EXIT.notReachable,
    EXIT.done,
  ];
  return order.find((code) => codes.includes(code)) ?? EXIT.done;
}
