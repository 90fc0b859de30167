import { type DestinationStream, type Logger, pino } from 'pino';
import { censorText, redact } from './redact.ts';

/**
 * JSON lines on standard output, without secrets: see {@link redact}.
 * @param level `LOG_LEVEL` of the environment where it is not given, else info
 */
export function createLogger(options: {
  readonly name: string;
  readonly level?: string;
  readonly destination?: DestinationStream;
}): Logger {
  const level = options.level ?? process.env.LOG_LEVEL ?? 'info';
  const settings = {
    name: options.name,
    level: level in pino.levels.values ? level : 'info',
    formatters: { log: redact },
    // `redact` has made plain values of errors.
    serializers: { err: (value: unknown) => value, msg: censorText },
  };
  // Written before the call returns: what a process says last, before it exits, must not be lost.
  const log = pino(settings, options.destination ?? pino.destination({ dest: 1, sync: true }));
  // pino writes a child's own fields without asking a formatter.
  const { child } = log;
  const redacted = (...[fields, ...rest]: Parameters<typeof child>) => [redact(fields), ...rest];
  log.child = function (this: typeof log, ...given: Parameters<typeof child>) {
    return Reflect.apply(child, this, redacted(...given));
  };
  return log;
}
