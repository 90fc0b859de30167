import assert from 'node:assert/strict';
import { it } from 'node:test';
import { isZero } from '@asterism/bytes/bytes';
import { clusterIdPcr } from '@asterism/runtime/machine-tpm';
import { startSwtpm } from '@asterism/testkit/swtpm';
import { AddressedTpm } from './machine.ts';

it('measures the cluster id on a real TPM as verifiers expect it, and names its attestation key', async () => {
  await using swtpm = await startSwtpm();
  const machine = new AddressedTpm(swtpm.address, 'ecc-p256');
  const before = await machine.readPcrs();
  assert.equal(before.size, 24);
  assert.ok(isZero(before.get(15)!));
  const clusterId = new Uint8Array(32).fill(7);
  await machine.extendClusterId(clusterId);
  assert.deepEqual((await machine.readPcrs()).get(15), clusterIdPcr(clusterId));
  const id = await machine.attestationKeyId();
  assert.match(id, /^[0-9a-f]{64}$/);
  assert.equal(await machine.attestationKeyId(), id);
});
