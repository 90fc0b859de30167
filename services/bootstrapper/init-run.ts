import type { InitResponse } from '@asterism/rpc/gen/init_pb';
import type { PhaseReport } from './phases.ts';

export type InitEventValue =
  | { readonly kind: 'progress'; readonly report: PhaseReport }
  | { readonly kind: 'log'; readonly line: string };

export type InitAnswer = Pick<InitResponse, 'kubeconfig' | 'ownerId' | 'clusterId'>;

/** Lines kept for a caller that comes later; the phases are always kept. */
const MAX_HISTORY = 5000;

/**
 * One init under way. It belongs to no call: a caller that is cut off does not stop it, and one that comes later
 * hears all of it. Only one caller listens at a time.
 */
export class InitRun {
  readonly fingerprint: string;
  readonly #history: InitEventValue[] = [];
  #wake: (() => void) | undefined;
  #listening = false;
  #ended = false;
  readonly result: Promise<InitAnswer>;

  /** @param work carries out the init and tells of it through `emit` */
  constructor(fingerprint: string, work: (emit: (event: InitEventValue) => void) => Promise<InitAnswer>) {
    this.fingerprint = fingerprint;
    this.result = work((event) => this.#emit(event)).finally(() => {
      this.#ended = true;
      this.#wake?.();
    });
    // Nobody may be listening when it fails; the next caller hears of it.
    this.result.catch(() => {});
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Takes the place of the one listener. @returns false where it is taken */
  tryListen(): boolean {
    if (this.#listening) return false;
    this.#listening = true;
    return true;
  }
  leave(): void {
    this.#listening = false;
  }

  /** All events from the first on, until the init ends or the signal aborts. */
  async *events(signal: AbortSignal): AsyncGenerator<InitEventValue> {
    const onAbort = (): void => this.#wake?.();
    signal.addEventListener('abort', onAbort);
    try {
      for (let next = 0; !signal.aborted; ) {
        while (next < this.#history.length && !signal.aborted) yield this.#history[next++]!;
        if (this.#ended) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          if (this.#ended || signal.aborted || next < this.#history.length) resolve();
        });
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #emit(event: InitEventValue): void {
    if (event.kind === 'log' && this.#history.length >= MAX_HISTORY) return;
    this.#history.push(event);
    this.#wake?.();
  }
}
