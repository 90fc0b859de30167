import { equal } from '@asterism/bytes/bytes';
import { fromBase64, fromHex, toHex } from '@asterism/bytes/encoding';
import { type Check, ParseError } from '@asterism/errors/errors';

export interface Measurement {
  /** SHA-256 PCR value, 32 bytes. */
  readonly expected: Uint8Array;
  /** A difference is reported but does not refuse. */
  readonly warnOnly: boolean;
}

/** Expected SHA-256 PCRs by index (0 to 23). Never empty. */
export type Measurements = ReadonlyMap<number, Measurement>;

const MAX_PCR = 23;

/**
 * Reads measurements from a JSON (or YAML) value of the shape index -> {expected: hex, warnOnly}. The older shapes
 * are read too: a plain string instead of the object (then enforced), and base64 instead of hex.
 *
 * @throws ParseError (ERR_MEASUREMENTS); an empty set is an error, because nothing would be compared
 */
export function parseMeasurements(value: unknown): Measurements {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw bad('not a map of PCR indexes');
  const entries = Object.entries(value);
  if (entries.length === 0) throw bad('empty: nothing would be compared');
  const measurements = new Map<number, Measurement>();
  for (const [key, entry] of entries) {
    if (!/^(0|[1-9][0-9]?)$/.test(key) || Number(key) > MAX_PCR) throw bad(`'${key}' is no PCR index`);
    measurements.set(Number(key), parseMeasurement(key, entry));
  }
  return new Map([...measurements].sort(([a], [b]) => a - b));
}

function parseMeasurement(index: string, entry: unknown): Measurement {
  if (typeof entry === 'string') return { expected: parseDigest(index, entry), warnOnly: false };
  if (typeof entry !== 'object' || entry === null)
    throw bad(`PCR ${index} is neither an object nor a string`);
  const { expected, warnOnly = false, ...rest } = entry as Record<string, unknown>;
  if (typeof expected !== 'string') throw bad(`PCR ${index} has no expected value`);
  if (typeof warnOnly !== 'boolean') throw bad(`warnOnly of PCR ${index} is neither true nor false`);
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) throw bad(`PCR ${index} has the unknown key '${unknown}'`);
  return { expected: parseDigest(index, expected), warnOnly };
}

function parseDigest(index: string, text: string): Uint8Array {
  if (text.length > 128) throw bad(`the value of PCR ${index} is too long`);
  for (const decode of [fromHex, fromBase64]) {
    try {
      const bytes = decode(text);
      if (bytes.length === 32) return bytes;
    } catch {
      // the other encoding is tried
    }
  }
  throw bad(`the value of PCR ${index} is not 32 bytes in hexadecimal or base64`);
}

function bad(why: string): ParseError {
  return new ParseError(`measurements: ${why}`, { code: 'ERR_MEASUREMENTS' });
}

/** The value that {@link parseMeasurements} reads, indexes ascending, for JSON or YAML. */
export function renderMeasurements(
  measurements: Measurements,
): Record<string, { expected: string; warnOnly: boolean }> {
  return Object.fromEntries(
    [...measurements]
      .sort(([a], [b]) => a - b)
      .map(([index, { expected, warnOnly }]) => [String(index), { expected: toHex(expected), warnOnly }]),
  );
}

/** Measurements with another expectation for one PCR; undefined removes it. */
export function withPcr(
  measurements: Measurements,
  index: number,
  expected: Uint8Array | undefined,
): Measurements {
  const copy = new Map(measurements);
  if (expected === undefined) copy.delete(index);
  else copy.set(index, { expected, warnOnly: false });
  return copy;
}

/** PCRs that were enforced and would only warn. Who changes a policy refuses these. */
export function weakened(before: Measurements, after: Measurements): number[] {
  return [...before]
    .filter(([index, { warnOnly }]) => !warnOnly && (after.get(index)?.warnOnly ?? true))
    .map(([index]) => index);
}

/**
 * One check per expected PCR. A PCR that was not quoted counts as different.
 * @throws ParseError when there is nothing to compare
 */
export function compareMeasurements(
  measurements: Measurements,
  pcrs: ReadonlyMap<number, Uint8Array>,
): Check[] {
  if (measurements.size === 0) throw bad('empty: nothing would be compared');
  return [...measurements].map(([index, { expected, warnOnly }]) => {
    const found = pcrs.get(index);
    const same = found !== undefined && equal(found, expected);
    const value = found === undefined ? 'not quoted' : toHex(found);
    return {
      name: `pcr-${index}`,
      outcome: same ? 'passed' : warnOnly ? 'warning' : 'failed',
      detail: same ? value : `${value}, expected ${toHex(expected)}`,
    };
  });
}
