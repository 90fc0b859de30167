import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Verifier } from '@asterism/attestation/types';
import { fromHex, toHex } from '@asterism/bytes/encoding';
import { PolicyError, VerificationError } from '@asterism/errors/errors';
import { identityPcr, unmarkedOrMember } from './cluster-identity.ts';

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
const verify = (pcr: Uint8Array | undefined) =>
  unmarkedOrMember(verifier(pcr), id).verify(new Uint8Array(), new Uint8Array());

for (const [what, pcr] of [
  ['of another cluster', identityPcr(new Uint8Array(32).fill(8))],
  ['that is the cluster id itself, not its PCR', id],
  ['cut short', identityPcr(id).subarray(0, 31)],
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
  for (const pcr of [new Uint8Array(32), identityPcr(id)]) {
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
    unmarkedOrMember(refusing, id).verify(new Uint8Array(), new Uint8Array()),
    VerificationError,
  );
});

test('the PCR follows the rule of the vectors', () => {
  const vector = '128c164378fe8767f998fbdfe4b4d6463ec5ae1b664ea5999bc27417607ae9b6';
  assert.equal(
    toHex(identityPcr(fromHex(vector))),
    '23400370357e846478cce7cc0c76cdfe4da077cc57b36dee0f665ede2c8b3f2f',
  );
});
