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

it('lets one of several callers extend the cluster id, and no later one', async () => {
  await using swtpm = await startSwtpm();
  const machine = new AddressedTpm(swtpm.address, 'ecc-p256');
  const ids = [1, 2, 3, 4].map((n) => new Uint8Array(32).fill(n));
  const results = await Promise.allSettled(ids.map((id) => machine.extendClusterId(id)));
  const winner = results.findIndex(({ status }) => status === 'fulfilled');
  assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1);
  await assert.rejects(machine.extendClusterId(ids[winner]!), { code: 'ERR_NODE_INITIALIZED' });
  assert.deepEqual((await machine.readPcrs()).get(15), clusterIdPcr(ids[winner]!));
});
