import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KmsConfig } from '@asterism/config/kms-config';
import { generateMasterSecret, MASTER_SECRET_FILE, renderMasterSecret } from '@asterism/config/master-secret';
import { parseKmsUri } from '@asterism/kms/uri';
import { scene, vault } from './rotate-kek-scene.fixture.ts';
import { retiredSecretFile } from './run-rotate-kek.ts';

describe('a rotation', () => {
  const never = async () => assert.fail('nothing is asked');

  it('with newer credentials for the same key uses them for the former generation too', async (t) => {
    const { workspace, cluster, rotate } = await scene(t, vault('k'));
    await workspace.create('token', 'second-token', { overwrite: true });
    let during: unknown;
    cluster.onOrder = async () => {
      during = cluster.homes.map(({ credentials }) => credentials?.kms.token);
    };
    await rotate();
    assert.deepEqual(during, ['second-token', 'second-token']);
  });

  it('to a key of another KMS keeps the credentials of the former one', async (t) => {
    const { workspace, cluster, rotate } = await scene(t, vault('k'));
    workspace.kms = vault('other');
    await workspace.create('token', 'second-token', { overwrite: true });
    let during: unknown;
    cluster.onOrder = async () => {
      during = cluster.homes.map(({ credentials }) => credentials?.kms.token);
    };
    await rotate();
    assert.deepEqual(during, ['first-token', 'second-token']);
  });

  it('is run until nothing is left that the former key wraps', async (t) => {
    const { cluster, rotate, state } = await scene(t, vault('k'));
    let runs = 0;
    cluster.onOrder = async () => {
      // A key that a KeyService has begun to make before it heard of the rotation comes after the first run.
      if (++runs === 2) await (await cluster.open(state.keyHome!)).getDek('key-late', 32);
    };
    const { rewrapped } = await rotate();
    assert.equal(runs, 3);
    assert.equal(rewrapped, cluster.store.objects.size);
    assert.match(Buffer.from(cluster.store.objects.get('key-late')!).toString(), /"generation":2/);
  });

  it('retires nothing while a KeyService does not say that it has the configuration', async (t) => {
    const { cluster, rotate, workspace } = await scene(t, vault('k'));
    const stop = new AbortController();
    cluster.replicas = (version) => {
      if (cluster.homes.length === 2) setTimeout(() => stop.abort(), 50);
      return [version, cluster.homes.length === 2 ? 'an older one' : version];
    };
    const timer = setTimeout(() => assert.fail('it went on'), 60_000);
    const ended = rotate().finally(() => clearTimeout(timer));
    await new Promise<void>((resolve) => stop.signal.addEventListener('abort', () => resolve()));
    assert.equal(cluster.homes.length, 2);
    for (const bytes of cluster.store.objects.values())
      assert.match(Buffer.from(bytes).toString(), /"generation":1/);
    cluster.replicas = (version) => [version, version];
    await ended;
    assert.equal(parseKmsUri((await workspace.requireState()).keyHome?.kmsUri ?? '').generation, 2);
  });

  it('that was cut off while the former key was retired waits for every KeyService all the same', async (t) => {
    const found = await scene(t, vault('k'));
    const { cluster, workspace } = found;
    cluster.step = async () => {
      if (cluster.homes.length === 1 && parseKmsUri(cluster.homes[0]!.kmsUri).generation === 2)
        throw new Error('killed');
    };
    await assert.rejects(found.rotate(), /killed/);
    cluster.step = async () => {};
    let asked = 0;
    cluster.replicas = (version) => (++asked < 6 ? ['an older one', version] : [version, version]);
    for (const disk of cluster.disks)
      assert.match(Buffer.from(disk.header[0]!.envelope!).toString(), /"generation":1/);
    await found.rotate();
    assert.ok(asked >= 6);
    assert.equal((await workspace.requireState()).nextKeyHome, undefined);
  });

  it('whose credentials cannot be read leaves no trace, and another key may be configured then', async (t) => {
    const { cluster, workspace, state, rotate } = await scene(t, vault('k'));
    await workspace.remove('token');
    cluster.step = never;
    await assert.rejects(rotate(), { code: 'ERR_CREDENTIALS' });
    assert.deepEqual(await workspace.requireState(), state);
    cluster.step = async () => {};
    await workspace.create('token', 'first-token');
    // Saved, but the cluster has not heard of it.
    cluster.step = async (what) => {
      if (what.startsWith('before')) throw new Error('killed');
    };
    workspace.kms = vault('mistyped');
    await assert.rejects(rotate(), /killed/);
    cluster.step = async () => {};
    workspace.kms = vault('other');
    await rotate();
    assert.match((await workspace.requireState()).keyHome?.kmsUri ?? '', /keyName=other/);
  });

  it('to a key that was mistyped is given up for another one, while it has wrapped nothing', async (t) => {
    const { cluster, workspace, rotate } = await scene(t, vault('k'));
    workspace.kms = vault('mistyped');
    cluster.onOrder = async () => {
      throw new Error('no such key');
    };
    await assert.rejects(rotate(), { code: 'ERR_REWRAP', message: /no such key/ });
    assert.match(cluster.homes[1]!.kmsUri, /keyName=mistyped/);
    cluster.onOrder = async () => {};
    workspace.kms = vault('other');
    await rotate();
    assert.match((await workspace.requireState()).keyHome?.kmsUri ?? '', /keyName=other/);
    assert.ok(cluster.homes.every(({ kmsUri }) => /keyName=other/.test(kmsUri)));
  });

  it('to a key that has wrapped something must end before another one begins', async (t) => {
    const { cluster, workspace, rotate } = await scene(t, vault('k'));
    workspace.kms = vault('other');
    cluster.onOrder = async () => {
      await cluster.key('key-new');
      throw new Error('too busy');
    };
    await assert.rejects(rotate(), { code: 'ERR_REWRAP', message: /too busy/ });
    workspace.kms = vault('third');
    await assert.rejects(rotate(), { code: 'ERR_OTHER_KMS', message: /change the configuration back/ });
    assert.match(cluster.homes[1]!.kmsUri, /keyName=other/);
    cluster.onOrder = async () => {};
    workspace.kms = vault('other');
    await rotate();
    assert.match(Buffer.from(cluster.store.objects.get('key-new')!).toString(), /"generation":2/);
  });

  it('names the nodes that do not answer, and which key they need', async (t) => {
    for (const [kms, hint] of [
      [{ type: 'cluster' }, /the old key stays in use/],
      [vault('k'), /Leave the former key enabled/],
    ] as const) {
      const { cluster, workspace, rotate } = await scene(t, kms);
      cluster.step = async (what) => {
        if (what === 'the node is asked') throw new Error('down');
      };
      await assert.rejects(rotate(), (error: Error & { code: string }) => {
        assert.equal(error.code, 'ERR_ROTATION_DISKS');
        assert.match(error.message, /cp-0 .*worker-0 /);
        assert.match(error.message, hint);
        return true;
      });
      if (kms.type !== 'cluster') assert.ok((await workspace.requireState()).nextKeyHome);
    }
  });

  it('does not lose disks of machines that are gone unless it is told to', async (t) => {
    const { cluster, workspace, rotate } = await scene(t, { type: 'cluster' });
    await cluster.join('worker-9');
    await assert.rejects(rotate(), { code: 'ERR_ROTATION_DISKS', message: /worker-9 .*--give-up-missing/ });
    assert.equal(cluster.homes.length, 2);
    await rotate(true);
    assert.equal(cluster.homes.length, 1);
    assert.equal((await workspace.masterSecret())?.generation, 2);
  });

  it('writes over no retired secret of an earlier cluster', async (t) => {
    const { workspace, rotate, secret } = await scene(t, { type: 'cluster' });
    const earlier = renderMasterSecret(generateMasterSecret());
    await workspace.create(retiredSecretFile(1), earlier);
    await assert.rejects(rotate(), { code: 'ERR_EXISTS', message: /move it away/ });
    assert.equal(await workspace.read(retiredSecretFile(1)), earlier);
    assert.equal(await workspace.read(MASTER_SECRET_FILE), renderMasterSecret(secret));
    await workspace.rename(retiredSecretFile(1), 'elsewhere');
    await rotate();
    assert.equal(await workspace.read(retiredSecretFile(1)), renderMasterSecret(secret));
  });

  it('with a configuration of the other kind, or of another store, asks nothing', async (t) => {
    const derived = await scene(t, { type: 'cluster' });
    derived.workspace.kms = vault('k');
    const stored = await scene(t, vault('k'));
    stored.workspace.kms = { type: 'cluster' };
    const elsewhere = await scene(t, vault('k'));
    elsewhere.workspace.kms = {
      ...(vault('k') as Extract<KmsConfig, { store: unknown }>),
      store: { type: 'aws', parameters: { bucket: 'abc', region: 'eu-central-1' }, credentials: {} },
    };
    for (const { cluster, rotate } of [derived, stored, elsewhere]) {
      cluster.step = never;
      await assert.rejects(rotate(), { code: 'ERR_OTHER_KMS' });
    }
  });
});
