/** A moment on the clock of performance.now, in milliseconds. */
export type Deadline = number;

export function deadlineAfter(timeoutMs: number): Deadline {
  return performance.now() + timeoutMs;
}

/** Milliseconds left; 0 when it is over. */
export function remainingMs(deadline: Deadline): number {
  return Math.max(0, deadline - performance.now());
}
