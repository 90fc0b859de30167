import { AsterismError } from '@asterism/errors/errors';
import type { Journal } from './journal.ts';

/** One step of an init or a join. Running it again after a kill at any point must complete it. */
export interface Phase<C> {
  readonly name: string;
  /** What it does lasts until the next boot only (a started program): it is run in every run. */
  readonly always?: boolean;
  run(context: C, signal: AbortSignal): Promise<void>;
}

export interface PhaseReport {
  readonly phase: string;
  readonly state: 'started' | 'done' | 'skipped';
  /** Counted from 1. */
  readonly number: number;
  readonly total: number;
}

/** A phase failed. What was done before it stays done; the same order may be given again. */
export class PhaseError extends AsterismError {
  readonly phase: string;

  constructor(phase: string, cause: unknown) {
    const code = cause instanceof AsterismError ? cause.code : 'ERR_PHASE';
    const why = cause instanceof Error ? cause.message : String(cause);
    super(code, `phase ${phase} failed: ${why}`, { cause });
    this.phase = phase;
  }
}

/** Runs what the journal does not know as done, in order, and writes each down when it is done. */
export async function runPhases<C>(
  phases: readonly Phase<C>[],
  context: C,
  journal: Journal,
  report: (report: PhaseReport) => void,
  signal: AbortSignal,
): Promise<void> {
  for (const [index, phase] of phases.entries()) {
    const tell = (state: PhaseReport['state']): void =>
      report({ phase: phase.name, state, number: index + 1, total: phases.length });
    if (journal.isDone(phase.name) && phase.always !== true) {
      tell('skipped');
      continue;
    }
    tell('started');
    try {
      signal.throwIfAborted();
      await phase.run(context, signal);
      await journal.markDone(phase.name);
    } catch (cause) {
      throw new PhaseError(phase.name, cause);
    }
    tell('done');
  }
}
