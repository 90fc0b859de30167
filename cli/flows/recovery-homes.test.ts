import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromUtf8, toBase64 } from '@asterism/bytes/encoding';
import type { ClusterConfig } from '@asterism/config/cluster-config';
import type { KmsConfig } from '@asterism/config/kms-config';
import {
  generateMasterSecret,
  MASTER_SECRET_FILE,
  NEXT_MASTER_SECRET_FILE,
  renderMasterSecret,
} from '@asterism/config/master-secret';
import type { ClusterState, StoredKeyHome } from '@asterism/config/state';
import { Workspace } from '@asterism/config/workspace';
import { renderClusterKmsUri } from '@asterism/kms/cluster-uri';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { Output } from '../output.ts';
import { externalKeyHome } from './key-home.ts';
import { type RecoverySource, recoveryHomes } from './recovery-homes.ts';

const CLUSTER = 'ab'.repeat(32);
const vault = (keyName: string): Exclude<KmsConfig, { type: 'cluster' }> => ({
  type: 'vault',
  parameters: { address: 'https://bao.example:8200', keyName },
  credentials: { token: { file: 'token' } },
  v26Blobs: false,
  store: { type: 'kubernetes', parameters: {}, credentials: {} },
});

async function scene(
  kms: KmsConfig,
  homes: { keyHome?: StoredKeyHome; nextKeyHome?: StoredKeyHome } | undefined,
) {
  const folder = await temporaryFolder();
  const workspace = new Workspace(folder.path);
  const state: ClusterState = {
    ...{ schema: 1, name: 'test', uid: '00000001', provider: 'local', phase: 'initialized' },
    ...{ kubernetesVersion: 'v1.37.2', image: 'sha256:aa', endpoint: '127.0.0.1', nodes: [] },
    initSecret: toBase64(new Uint8Array(8)),
    clusterId: CLUSTER,
    ...homes,
  };
  if (homes !== undefined) await workspace.writeState(state);
  await workspace.create('token', 'hunter22\n');
  const context = { workspace, out: new Output('text'), signal: new AbortController().signal };
  return {
    workspace,
    find: (options: RecoverySource = {}) => recoveryHomes(context, { kms } as ClusterConfig, options),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

test('derived keys: the secret of the workspace, and while it is rotated the next one first', async () => {
  await using found = await scene({ type: 'cluster' }, {});
  await assert.rejects(found.find(), { code: 'ERR_NO_MASTER_SECRET' });
  const [present, next] = [
    generateMasterSecret(),
    { ...generateMasterSecret(), generation: 2, measurementSecret: new Uint8Array(32).fill(9) },
  ];
  await found.workspace.createMasterSecret(present);
  const uris = async (options: RecoverySource = {}) =>
    (await found.find(options)).map(({ kmsUri }) => kmsUri);
  assert.deepEqual(await uris(), [renderClusterKmsUri(present)]);
  await found.workspace.create(NEXT_MASTER_SECRET_FILE, renderMasterSecret(next));
  assert.deepEqual(await uris(), [renderClusterKmsUri(next), renderClusterKmsUri(present)]);
  // Who names a file means that one.
  const masterSecret = found.workspace.path(MASTER_SECRET_FILE);
  assert.deepEqual(await uris({ masterSecret }), [renderClusterKmsUri(present)]);
});

test('an external KMS: the one of the state file, whatever the configuration says by now', async () => {
  const keyHome = externalKeyHome(vault('k'), CLUSTER, 1);
  for (const kms of [vault('other'), { type: 'cluster' } as const]) {
    await using found = await scene(kms, { keyHome });
    const [home, ...more] = await found.find();
    assert.deepEqual(more, []);
    assert.deepEqual([home?.kmsUri, home?.storageUri], [keyHome.kmsUri, 'storage://kubernetes']);
    assert.doesNotMatch(home?.kmsUri ?? '', /hunter22/);
    assert.deepEqual(JSON.parse(fromUtf8(home?.kmsCredentials ?? new Uint8Array())), {
      kms: { token: 'hunter22' },
      storage: {},
    });
  }
});

test('an external KMS that is being changed: the next one first', async () => {
  const keyHome = externalKeyHome(vault('k'), CLUSTER, 1);
  const nextKeyHome = externalKeyHome(vault('other'), CLUSTER, 2);
  await using found = await scene(vault('other'), { keyHome, nextKeyHome });
  assert.deepEqual(
    (await found.find()).map(({ kmsUri }) => kmsUri),
    [nextKeyHome.kmsUri, keyHome.kmsUri],
  );
});

test('an external KMS without a state file: the cluster must be named, and its generation', async () => {
  await using found = await scene(vault('k'), undefined);
  await assert.rejects(found.find(), { code: 'ERR_NO_CLUSTER', message: /--cluster-id/ });
  const [home] = await found.find({ clusterId: CLUSTER, generation: 3 });
  assert.equal(home?.kmsUri, externalKeyHome(vault('k'), CLUSTER, 3).kmsUri);
});

test('a master secret or shares are no use with an external KMS, and said to be none', async () => {
  await using found = await scene(vault('k'), { keyHome: externalKeyHome(vault('k'), CLUSTER, 1) });
  for (const options of [{ masterSecret: 'x' }, { share: ['x'] }, { sharesPrompt: true }])
    await assert.rejects(found.find(options), { code: 'ERR_OTHER_KMS', message: /leave them out/ });
});

test('credentials that are missing are named by their source, never by their value', async () => {
  await using found = await scene(vault('k'), { keyHome: externalKeyHome(vault('k'), CLUSTER, 1) });
  await found.workspace.create('token', 'hunter22 \u0007', { overwrite: true });
  await assert.rejects(found.find(), (error: Error & { code: string }) => {
    assert.equal(error.code, 'ERR_CREDENTIALS');
    assert.match(error.message, /kms\.credentials\.token: what token holds/);
    assert.doesNotMatch(error.message, /hunter22/);
    return true;
  });
  await found.workspace.remove('token');
  await assert.rejects(found.find(), { code: 'ERR_CREDENTIALS', message: /token cannot be read/ });
});
