/**
 * Base of every error this project throws on purpose. `code` is stable: callers and scripts may match on it.
 * Messages say what happened, why, and what to do next, and never hold key material.
 */
export class AsterismError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** Bytes or text that do not have the form their specification demands. */
export class ParseError extends AsterismError {
  /** Where in the input, in bytes from its start, the parser gave up. Undefined where there is no position. */
  readonly offset: number | undefined;

  constructor(message: string, options?: { cause?: unknown; offset?: number; code?: string }) {
    super(options?.code ?? 'ERR_PARSE', message, options);
    this.offset = options?.offset;
  }
}

/** One thing that was looked at while judging evidence. */
export interface Check {
  /** Short stable name, e.g. `quote-signature` or `pcr-4`. */
  readonly name: string;
  readonly outcome: 'passed' | 'warning' | 'failed';
  /** What was found, for a person. */
  readonly detail: string;
}

/** Evidence is false: a signature, binding or hash does not hold. Exit code 2. */
export class VerificationError extends AsterismError {
  /** All checks up to and with the one that failed. */
  readonly checks: readonly Check[];

  constructor(code: string, message: string, options?: { cause?: unknown; checks?: readonly Check[] }) {
    super(code, message, options);
    this.checks = options?.checks ?? [];
  }
}

/** Evidence is genuine but not what the policy allows. Exit code 3. */
export class PolicyError extends AsterismError {
  readonly checks: readonly Check[];

  constructor(code: string, message: string, options?: { cause?: unknown; checks?: readonly Check[] }) {
    super(code, message, options);
    this.checks = options?.checks ?? [];
  }
}

/** A peer, file or program that had to be there could not be reached or did not answer in time. Exit code 4. */
export class UnreachableError extends AsterismError {
  constructor(message: string, options?: { cause?: unknown; code?: string }) {
    super(options?.code ?? 'ERR_UNREACHABLE', message, options);
  }
}

/** More was asked than is served at a time. Nothing was done; waiting helps. */
export class BusyError extends AsterismError {}
