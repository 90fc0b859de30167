import { AsterismError } from '@asterism/errors/errors';

/** The user stopped the command. What it had saved stays, so it can be run again. */
export class InterruptedError extends AsterismError {
  constructor(signal: string) {
    super(
      'ERR_INTERRUPTED',
      `stopped by ${signal}; what was done is saved: run the same command again to go on`,
    );
  }
}

/**
 * The first SIGINT or SIGTERM aborts the returned signal; the second ends the process at once.
 */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) {
        // By the signal itself, so that the caller's shell sees what ended us.
        process.removeAllListeners(name);
        process.kill(process.pid, name);
        return;
      }
      process.stderr.write('\nstopping; press Ctrl-C again to end at once\n');
      controller.abort(new InterruptedError(name));
    });
  }
  return controller.signal;
}
