import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clusterIdPcr } from '@asterism/attestation/cluster-id';
import type { Verifier } from '@asterism/attestation/types';
import { PolicyError, VerificationError } from '@asterism/errors/errors';
import { unmarkedOrMember } from './cluster-identity.ts';

const id = new Uint8Array(32).fill(7);
const verifier = (pcr: Uint8Array | undefined): Verifier => ({
  variant: 'fake',
  oid: '1.3.9900.1',
  verify: async () => ({
    variant: 'fake',
    userData: new Uint8Array(),
    checks: [{ name: 'pcr-4', outcome: 'passed', detail: '' }],
    attestationKeyId: '',
    pcrs: new Map(pcr === undefined ? [] : [[15, pcr]]),
  }),
});
const verify = async (pcr: Uint8Array | undefined) =>
  (await unmarkedOrMember(verifier(pcr), id)).verify(new Uint8Array(), new Uint8Array());

for (const [what, pcr] of [
  ['of another cluster', await clusterIdPcr(new Uint8Array(32).fill(8))],
  ['that is the cluster id itself, not its PCR', id],
  ['cut short', (await clusterIdPcr(id)).subarray(0, 31)],
  ['of no bytes', new Uint8Array()],
  ['that the quote lacks', undefined],
] as const) {
  test(`a node with a PCR 15 ${what} is refused`, async () => {
    await assert.rejects(verify(pcr), (error: PolicyError) => {
      assert.ok(error instanceof PolicyError);
      assert.equal(error.checks.at(-1)?.outcome, 'failed');
      return error.code === 'ERR_FOREIGN_CLUSTER';
    });
  });
}

test('an unmarked node and one of this very cluster pass, with the check in the verdict', async () => {
  for (const pcr of [new Uint8Array(32), await clusterIdPcr(id)]) {
    const verdict = await verify(pcr);
    assert.deepEqual(
      verdict.checks.map((check) => [check.name, check.outcome]),
      [
        ['pcr-4', 'passed'],
        ['pcr-15', 'passed'],
      ],
    );
  }
});

test('what the inner verifier refuses stays refused', async () => {
  const inner = verifier(new Uint8Array(32));
  const refusing = {
    ...inner,
    verify: async () => {
      throw new VerificationError('ERR_X', 'false');
    },
  };
  await assert.rejects(
    (await unmarkedOrMember(refusing, id)).verify(new Uint8Array(), new Uint8Array()),
    VerificationError,
  );
});
