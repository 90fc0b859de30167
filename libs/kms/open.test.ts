import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toHex } from '@asterism/bytes/encoding';
import { renderClusterKmsUri } from './cluster-uri.ts';
import { clusterKms, masterSecretOf, openKms } from './open.ts';

const range = (from: number, to: number) => Uint8Array.from({ length: to - from + 1 }, (_, i) => from + i);
const secret = { key: range(0, 0x1f), salt: range(0x20, 0x3f) };
const uri = renderClusterKmsUri(secret);
const NO_STORE = 'storage://no-store';

for (const [what, kms, storage, code] of [
  ['two unknown ones', 'kms://unknown', 'storage://unknown', 'ERR_KMS_UNSUPPORTED'],
  [
    'an external KMS that is not all there',
    'kms://aws?keyName=a2V5',
    'storage://aws?bucket=x',
    'ERR_KMS_URI',
  ],
  ['a storage where none is needed', uri, 'storage://aws?bucket=x', 'ERR_KMS_UNSUPPORTED'],
  ['no storage URI', uri, '', 'ERR_KMS_UNSUPPORTED'],
  ['nothing', '', '', 'ERR_KMS_UNSUPPORTED'],
  ['another scheme', uri.replace('kms:', 'https:'), NO_STORE, 'ERR_KMS_UNSUPPORTED'],
  ['a name that only begins so', uri.replace('cluster-kms', 'cluster-kms2'), NO_STORE, 'ERR_KMS_UNSUPPORTED'],
  ['no parameters', 'kms://cluster-kms', NO_STORE, 'ERR_KMS_URI'],
  ['a key that is too short', 'kms://cluster-kms?key=a2V5&salt=c2FsdA==', NO_STORE, 'ERR_KMS_URI'],
] as const) {
  test(`refused: ${what}; nothing of the URIs is in the message`, async () => {
    await assert.rejects(openKms(kms, storage), (error: Error & { code?: string }) => {
      assert.equal(error.code, code);
      assert.doesNotMatch(`${error.message}${error.stack}`, /AAECAwQ|a2V5|bucket/);
      return true;
    });
  });
}

test('the cluster KMS gives the keys of the vectors, and each key again', async () => {
  const keys = await openKms(uri, NO_STORE);
  // key-vectors.md section 2
  const expected = 'ea7fedd14f5a29b1b8545592fc20bfdae06918e4ff447b1a0b8e4f3356005bda';
  for (let i = 0; i < 2; i++) assert.equal(toHex(await keys.getDek('key-measurementSecret', 32)), expected);
  await keys.close();
  await assert.rejects(keys.getDek('', 32), { code: 'ERR_DERIVE' });
  await assert.rejects(keys.getDek('key-x', 0), { code: 'ERR_DERIVE' });
});

// RFC 5869 A.3 has neither: anybody could compute the keys.
for (const [what, empty] of [
  ['key', { ...secret, key: new Uint8Array() }],
  ['salt', { ...secret, salt: new Uint8Array() }],
] as const) {
  test(`there is no KMS with an empty ${what}`, () => {
    assert.throws(() => clusterKms(empty), { code: 'ERR_DERIVE' });
  });
}

test('the master secret of a cluster URI; none of others', () => {
  assert.deepEqual(masterSecretOf(uri), secret);
  assert.equal(masterSecretOf('kms://gcp?keyName=x'), undefined);
});
