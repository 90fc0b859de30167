import assert from 'node:assert/strict';
import { equal } from '@asterism/bytes/bytes';
import { VerificationError } from '@asterism/errors/errors';
import { writeEventLog } from '@asterism/eventlog/write';
import { ForgingTpm } from '@asterism/testkit/forged-quote';
import { QemuVtpmVerifier } from './verifier.ts';

export const name = 'attestation/qemu-vtpm';

const userData = new Uint8Array(32).fill(1);
const nonce = new Uint8Array(32).fill(2);
const zero = new Uint8Array(32);
const pcrs = new Map([4, 9, 15].map((index) => [index, zero]));
const verifier = new QemuVtpmVerifier({
  measurements: new Map([[15, { expected: zero, warnOnly: true }]]),
});

const tpm = new ForgingTpm();
export const seeds = [
  tpm.document(userData, nonce, pcrs),
  tpm.document(userData, nonce, pcrs, { eventLog: writeEventLog([]) }),
];

/** Whatever is accepted says what the key signed. */
export async function run(input: Uint8Array): Promise<void> {
  try {
    const verdict = await verifier.verify(input, nonce);
    assert.ok(equal(verdict.userData, userData));
    assert.deepEqual([...verdict.pcrs], [...pcrs]);
  } catch (error) {
    if (!(error instanceof VerificationError)) throw error;
  }
}
