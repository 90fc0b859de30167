import assert from 'node:assert/strict';
import { fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import { parseJson } from '@asterism/bytes/json';
import { parseMeasurements, renderMeasurements } from './measurements.ts';

export const name = 'attestation/measurements';

export const seeds = [
  `{"4":{"expected":"${'ab'.repeat(32)}","warnOnly":false},"15":{"expected":"${'00'.repeat(32)}","warnOnly":true}}`,
  '{"2":"/V3p3zUOO8RBCsBrv+XM3rk/U7nvUSOfdSzmnbxgDzU="}',
].map(toUtf8);

export function run(input: Uint8Array): void {
  const measurements = parseMeasurements(parseJson(fromUtf8(input)));
  assert.ok(measurements.size > 0);
  for (const { expected } of measurements.values()) assert.equal(expected.length, 32);
  assert.deepEqual(parseMeasurements(renderMeasurements(measurements)), measurements);
}
