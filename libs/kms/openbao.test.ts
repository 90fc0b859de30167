import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { type OpenBao, openBaoProgram, startOpenBao } from '@asterism/testkit/counterparts/openbao';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { parseEnvelope } from './envelope.ts';
import { openKek, openKeyHome } from './open.ts';
import { rewrapAll } from './rewrap.ts';
import { openFolderStore } from './stores/folder/store.ts';
import { renderKmsUri } from './uri.ts';

// Stored keys from their URIs to a real KMS and back, and a rotation that both sides do not live through.

const clusterId = randomBytes(32).toString('hex');
const found = await openBaoProgram();

describe('stored keys with OpenBao', { skip: 'skip' in found && found.skip, timeout: 120_000 }, () => {
  let bao: OpenBao;
  before(async () => {
    if ('program' in found) bao = await startOpenBao(found.program);
  });
  after(() => bao?.[Symbol.asyncDispose]());

  const choice = (keyName: string, generation: number) => ({
    kmsUri: renderKmsUri({
      kind: 'external',
      name: 'vault',
      parameters: { address: bao.address, keyName },
      clusterId,
      generation,
      acceptV26Blobs: false,
      credentials: {},
    }),
    credentials: { caCertificate: bao.ca, token: bao.rootToken },
  });
  const homeOf = async (folder: string, now: ReturnType<typeof choice>, previous?: typeof now) =>
    openKeyHome({
      kmsUri: now.kmsUri,
      credentials: { kms: now.credentials },
      storageUri: 'storage://kubernetes',
      store: await openFolderStore(folder),
      previous,
      retry: { tries: 2, deadlineMs: 5000 },
    });

  test('the KMS is killed during a rotation: nothing is lost, and it goes on', async () => {
    await using folder = await temporaryFolder();
    for (const name of ['old', 'new'])
      await bao.admin('POST', `transit/keys/${name}`, { type: 'aes256-gcm96' });
    const [before, next] = [choice('old', 1), choice('new', 2)];
    const old = await homeOf(folder.path, before);
    const ids = Array.from({ length: 60 }, (_, i) => `key-${i}`);
    const deks = await Promise.all(ids.map((id) => old.getDek(id, 32)));

    const store = await openFolderStore(folder.path);
    const from = { kek: await openKek(before), generation: 1 };
    const to = { kek: await openKek(next), generation: 2 };
    const options = { from, to, store, clusterId, concurrency: 4, retry: { tries: 2, deadlineMs: 10_000 } };
    let killed: Promise<void> | undefined;
    const broken = rewrapAll({
      ...options,
      onProgress: ({ rewrapped }) => {
        if (rewrapped === 20) killed = bao.kill();
      },
    });
    await assert.rejects(broken, { name: 'KmsUnavailableError' });
    assert.ok(killed);
    await killed;
    assert.deepEqual(await old.getDek('key-0', 32), deks[0], 'what is cached is served');

    await bao.start();
    // Half is done; a home that knows both generations gives every key.
    const both = await homeOf(folder.path, next, before);
    assert.deepEqual(await Promise.all(ids.map((id) => both.getDek(id, 32))), deks);
    const result = await rewrapAll(options);
    assert.deepEqual([result.total, result.failedCount], [60, 0]);
    assert.ok(result.alreadyDone >= 20 && result.rewrapped > 0);
    assert.equal((await rewrapAll(options)).alreadyDone, 60);

    // The old KEK may go.
    await bao.admin('POST', 'transit/keys/old/config', { deletion_allowed: true });
    await bao.admin('DELETE', 'transit/keys/old');
    const after = await homeOf(folder.path, next);
    assert.deepEqual(await Promise.all(ids.map((id) => after.getDek(id, 32))), deks);
    for (const home of [old, both, after]) await home.close();
  });

  test('a newer version of the same key', async () => {
    await using folder = await temporaryFolder();
    await bao.admin('POST', 'transit/keys/versions', { type: 'aes256-gcm96' });
    const home = await homeOf(folder.path, choice('versions', 1));
    const dek = await home.getDek('key-x', 32);
    await bao.admin('POST', 'transit/keys/versions/rotate');
    const kek = { kek: await openKek(choice('versions', 1)), generation: 1 };
    const store = await openFolderStore(folder.path);
    assert.equal((await rewrapAll({ from: kek, to: kek, store, clusterId })).rewrapped, 1);
    const { keyId } = parseEnvelope((await store.get('key-x'))!.bytes).wrapped;
    assert.equal(keyId, (await home.status()).keyId);
    const again = await homeOf(folder.path, choice('versions', 1));
    assert.deepEqual(await again.getDek('key-x', 32), dek);
    await home.close();
    await again.close();
  });
});
