import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clusterIdPcr as withWebCrypto } from '@asterism/attestation/cluster-id';
import { fromHex, toHex } from '@asterism/bytes/encoding';
import { clusterIdPcr } from './machine-tpm.ts';

// key-vectors.md section 2
for (const [id, pcr] of [
  [
    '128c164378fe8767f998fbdfe4b4d6463ec5ae1b664ea5999bc27417607ae9b6',
    '23400370357e846478cce7cc0c76cdfe4da077cc57b36dee0f665ede2c8b3f2f',
  ],
  [
    'e7fd5a0e36fb56d69807aa36e68aee24438c1bf8766780b6106150f35b7aacba',
    'f75516d57d358d6acd9c5e6e5c74b910ca7da9ddbc7935d0707c9b71656b968d',
  ],
  ['11'.repeat(32), '1e60f81404c2f085dc1bb30642c0c23cd3f77bd32424888abb3fc0f9908f1adf'],
  ['02', '07cd877f1286496295abdf54bcec329c4b3df21412c66b4b9b30e36ec204d91d'],
  ['00010203', '40e460b124384dce5c8258277fcb11622ea59a4d4b9ac6c83a3cacba85a71de4'],
] as const) {
  test(`PCR 15 of a member of ${id.slice(0, 8)}, the same here and where evidence is judged`, async () => {
    assert.equal(toHex(clusterIdPcr(fromHex(id))), pcr);
    assert.equal(toHex(await withWebCrypto(fromHex(id))), pcr);
  });
}
