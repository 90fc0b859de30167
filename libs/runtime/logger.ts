import { type DestinationStream, type Logger, pino } from 'pino';

/** Field names whose values never reach a log, at the top and one level down. */
const SECRET = [
  'authorization',
  'dataKey',
  'kmsUri',
  'masterSecret',
  'measurementSecret',
  'password',
  'passphrase',
  'secret',
  'stateDiskKey',
  'token',
];

/**
 * JSON lines on standard output.
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
    redact: { paths: SECRET.flatMap((name) => [name, `*.${name}`]), censor: '[secret]' },
  };
  return options.destination === undefined ? pino(settings) : pino(settings, options.destination);
}
