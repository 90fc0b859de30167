import { watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Measurements, parseMeasurements } from '@asterism/attestation/measurements';
import { isZero } from '@asterism/bytes/bytes';
import { ParseError } from '@asterism/errors/errors';
import { CLUSTER_ID_PCR } from '@asterism/runtime/machine-tpm';

const MAX_BYTES = 64 * 1024;
/** A volume's swap is several events. */
const SETTLE_MS = 200;

/**
 * What joining nodes must meet. PCR 15 must be enforced as zero: a node that belongs to a cluster joins no other.
 * @throws ParseError ERR_MEASUREMENTS
 */
export async function readMeasurements(path: string): Promise<Measurements> {
  const bad = (why: string, cause?: unknown) =>
    new ParseError(`${path}: ${why}`, { code: 'ERR_MEASUREMENTS', cause });
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw bad('it cannot be read', cause);
  });
  if (bytes.length > MAX_BYTES) throw bad(`it has ${bytes.length} bytes`);
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw bad('it is not JSON', cause);
  }
  const measurements = parseMeasurements(json);
  const membership = measurements.get(CLUSTER_ID_PCR);
  if (membership === undefined || membership.warnOnly || !isZero(membership.expected))
    throw bad(`PCR ${CLUSTER_ID_PCR} must be enforced as zero: members of a cluster would be let in again`);
  return measurements;
}

/**
 * Calls `update` whenever the file changes. A ConfigMap volume changes by swapping a link, so the folder is watched.
 * Content that cannot be used goes to `refused`, and the caller stays with what it has.
 */
export function watchMeasurements(
  path: string,
  update: (measurements: Measurements) => void,
  refused: (error: unknown) => void,
): () => void {
  let timer: NodeJS.Timeout | undefined;
  const watcher = watch(dirname(path), () => {
    clearTimeout(timer);
    timer = setTimeout(() => readMeasurements(path).then(update).catch(refused), SETTLE_MS);
  });
  watcher.on('error', refused);
  return () => {
    clearTimeout(timer);
    watcher.close();
  };
}
