import { type Check, PolicyError } from '@asterism/errors/errors';
import { compareMeasurements, type Measurements } from '../../measurements.ts';

/** What a cluster demands of evidence that is genuine. */
export interface VtpmPolicy {
  readonly measurements: Measurements;
  /** When given, only machines with these attestation keys (hex SHA-256 of the public area) pass. */
  readonly attestationKeys?: ReadonlySet<string>;
}

/**
 * Compares verified evidence with the policy.
 *
 * @param checks what was checked before, for the error and the result
 * @returns all checks, warnings among them
 * @throws PolicyError ERR_AK_UNKNOWN | ERR_MEASUREMENTS_DIFFER, naming every check that failed
 */
export function validateDocument(
  policy: VtpmPolicy,
  found: {
    readonly checks: readonly Check[];
    readonly pcrs: ReadonlyMap<number, Uint8Array>;
    readonly attestationKeyId: string;
  },
): Check[] {
  const checks = [...found.checks];
  if (policy.attestationKeys === undefined) {
    checks.push({
      name: 'ak-trust',
      outcome: 'warning',
      detail: 'nothing proves whose TPM this key belongs to: this variant trusts the host',
    });
  } else {
    const known = policy.attestationKeys.has(found.attestationKeyId);
    const detail = known ? 'the key is in the list' : 'the key is not in the list of attestation keys';
    checks.push({ name: 'ak-trust', outcome: known ? 'passed' : 'failed', detail });
  }
  checks.push(...compareMeasurements(policy.measurements, found.pcrs));
  const failed = checks.filter((check) => check.outcome === 'failed');
  if (failed.length > 0) {
    const unknownKey = failed.some(({ name }) => name === 'ak-trust');
    throw new PolicyError(
      unknownKey ? 'ERR_AK_UNKNOWN' : 'ERR_MEASUREMENTS_DIFFER',
      `the machine is not what the policy expects: ${failed.map(({ name, detail }) => `${name} is ${detail}`).join('; ')}`,
      { checks },
    );
  }
  return checks;
}
