import { BusyError } from '@asterism/errors/errors';
import { callerOf } from './attempt-limiter.ts';

/**
 * Work of which one is done at a time, in the order in which it was asked for. A caller has one place in the line, so
 * it waits for at most one piece of work of each other caller, however often that one asks.
 */
export class FairTurns {
  readonly #maxWaiting: number;
  readonly #waiting = new Set<string>();
  #last: Promise<unknown> = Promise.resolve();

  /** @param maxWaiting callers in the line, with the one whose turn it is */
  constructor(maxWaiting = 64) {
    this.#maxWaiting = maxWaiting;
  }

  /** @throws BusyError ERR_BUSY the caller has its place already, or the line is full; nothing was done */
  async take<T>(address: string, work: () => Promise<T>): Promise<T> {
    const caller = callerOf(address);
    if (this.#waiting.has(caller))
      throw new BusyError('ERR_BUSY', 'an earlier call of yours is being worked on: try again in a second');
    if (this.#waiting.size >= this.#maxWaiting)
      throw new BusyError('ERR_BUSY', 'too many callers are waiting: try again in a second');
    this.#waiting.add(caller);
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    try {
      return await turn;
    } finally {
      this.#waiting.delete(caller);
    }
  }
}
