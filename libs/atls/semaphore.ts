/**
 * Lets at most `limit` holders work at a time. The others wait in one queue for each key, and the queues take turns: who
 * asks a hundred times waits longer for the last, and nobody else does.
 */
export class Semaphore {
  /** Order of insertion is the order of turns. */
  readonly #queues = new Map<string, Set<() => void>>();
  #free: number;

  constructor(limit: number) {
    this.#free = limit;
  }

  /** Runs `work` when there is room. A waiter whose signal aborts leaves its queue with the signal's reason. */
  async run<T>(key: string, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await this.#wait(key, signal);
    try {
      return await work();
    } finally {
      this.#release();
    }
  }

  #wait(key: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const queue = this.#queues.get(key) ?? new Set();
      const go = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        queue.delete(go);
        if (queue.size === 0) this.#queues.delete(key);
        reject(signal.reason);
      };
      signal.addEventListener('abort', leave, { once: true });
      this.#queues.set(key, queue.add(go));
    });
  }

  #release(): void {
    const [turn] = this.#queues;
    if (turn === undefined) {
      this.#free++;
      return;
    }
    const [key, queue] = turn;
    const [next] = queue;
    queue.delete(next!);
    // To the end of the line, where others of its key still wait.
    this.#queues.delete(key);
    if (queue.size > 0) this.#queues.set(key, queue);
    next!();
  }
}
