import { watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Measurements, parseMeasurements } from '@asterism/attestation/measurements';
import type { Logger } from 'pino';

const MAX_BYTES = 64 * 1024;
const SETTLE_MS = 200;

/** @throws ParseError the file holds no usable measurements */
export async function readMeasurements(path: string): Promise<Measurements> {
  const text = await readFile(path, 'utf8');
  if (text.length > MAX_BYTES) throw new RangeError(`${path} has ${text.length} characters`);
  return parseMeasurements(JSON.parse(text));
}

/**
 * Calls `update` whenever the file changes. A ConfigMap volume changes by swapping a link, so the folder is watched;
 * content that cannot be used is reported and the policy stays as it was.
 */
export function watchMeasurements(
  path: string,
  update: (measurements: Measurements) => void,
  log: Logger,
): () => void {
  let timer: NodeJS.Timeout | undefined;
  const watcher = watch(dirname(path), () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      readMeasurements(path).then(
        (measurements) => {
          update(measurements);
          log.info({ pcrs: [...measurements.keys()] }, 'measurements updated');
        },
        (err: unknown) => log.error({ err }, 'the new measurements cannot be used; the old ones stay'),
      );
    }, SETTLE_MS);
  });
  return () => {
    clearTimeout(timer);
    watcher.close();
  };
}
