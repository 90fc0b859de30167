import type { Logger } from 'pino';
import { Registry } from 'prom-client';
import { serveHealth } from './health-server.ts';
import { createLogger } from './logger.ts';

const STOP_LIMIT_MS = 20_000;

/** What every service is given. */
export interface ServiceFrame {
  readonly log: Logger;
  readonly registry: Registry;
}

/** A service that serves. */
export interface RunningService {
  /** What keeps it from doing its work right now; undefined while nothing does. */
  missing?(): string | undefined;
  /** What cannot get better by itself; the service is restarted for it. */
  broken?(): string | undefined;
  /** Stops taking new work, lets running work end, gives everything back. */
  stop(): Promise<void>;
}

/**
 * The life of a service's process: health endpoint, start, stop at SIGTERM or SIGINT. It exits with 0 after a clean
 * stop; with 1 when it cannot start, has an unexpected error, or takes more than 20 s to stop.
 */
export async function runService(
  options: { readonly name: string; readonly healthPort: number },
  start: (frame: ServiceFrame) => Promise<RunningService>,
): Promise<void> {
  const log = createLogger({ name: options.name });
  const fail = (err: unknown, what: string): never => {
    log.fatal({ err }, what);
    process.exit(1);
  };
  process.on('uncaughtException', (err) => fail(err, 'unexpected error'));

  let service: RunningService | undefined;
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, 'stopping');
    setTimeout(
      () => fail(new Error(`not stopped after ${STOP_LIMIT_MS} ms`), 'stopping failed'),
      STOP_LIMIT_MS,
    ).unref();
    (service?.stop() ?? Promise.resolve()).then(
      () => process.exit(0),
      (err) => fail(err, 'stopping failed'),
    );
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);

  try {
    const registry = new Registry();
    await serveHealth({
      port: options.healthPort,
      registry,
      missing: () => {
        if (stopping) return 'stopping';
        return service === undefined ? 'starting' : (service.broken?.() ?? service.missing?.());
      },
      broken: () => service?.broken?.(),
    });
    service = await start({ log, registry });
    log.info({}, 'serving');
  } catch (err) {
    fail(err, 'cannot start');
  }
}
