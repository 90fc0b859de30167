import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { componentsFolder } from '@asterism/kubernetes/components/manifest';
import { newUid, SKIP_NODES } from './cluster.fixture.ts';
import { clusterFolder } from './cluster.ts';
import { builtComponents, componentsOfCluster, keepComponents, ownComponents } from './components.ts';
import { serveMirror } from './mirror.ts';

const VERSION = 'v1.0.0';
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

/** A cluster's folder, and a cache in `parent` with two components. */
async function world(t: TestContext, parent = '/var/tmp') {
  const cache = await mkdtemp(join(parent, 'asterism-cache-'));
  const before = process.env.XDG_CACHE_HOME;
  process.env.XDG_CACHE_HOME = cache;
  const uid = newUid();
  await mkdir(clusterFolder(uid), { recursive: true, mode: 0o700 });
  t.after(async () => {
    if (before === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = before;
    await rm(cache, { recursive: true });
    await rm(clusterFolder(uid), { recursive: true });
  });
  const folder = componentsFolder(VERSION);
  await mkdir(join(folder, 'bin'), { recursive: true });
  const components = [];
  for (const name of ['kubelet', 'kubeadm']) {
    await writeFile(join(folder, 'bin', name), name);
    const hash = `sha256:${sha256(name)}`;
    const entry = { name, file: `bin/${name}`, hash, size: name.length, source: 'made up' };
    components.push({ ...entry, installPath: `/run/state/bin/${name}`, extract: false });
  }
  const manifest = { version: VERSION, recipe: 'made up', components };
  await writeFile(join(folder, 'components.json'), JSON.stringify(manifest));
  return {
    uid,
    manifest,
    kubelet: join(folder, 'bin/kubelet'),
    own: join(ownComponents(uid), sha256('kubelet')),
  };
}

describe('components of a cluster', { skip: SKIP_NODES }, () => {
  it('are refused where the cache has other bytes than its manifest says', async (t) => {
    const { uid, kubelet } = await world(t);
    await writeFile(kubelet, 'kubelot');
    await assert.rejects(
      keepComponents(uid, await builtComponents(VERSION)),
      (error: Error & { code: string }) => {
        assert.equal(error.code, 'ERR_COMPONENT_HASH');
        assert.match(error.message, /bin\/kubelet has sha256:.* run: asterism components build v1\.0\.0/);
        return true;
      },
    );
    await assert.rejects(componentsOfCluster(uid), { code: 'ERR_NO_COMPONENTS' });
  });

  it('are refused where one is missing', async (t) => {
    const { uid, kubelet } = await world(t);
    await rm(kubelet);
    await assert.rejects(keepComponents(uid, await builtComponents(VERSION)), { code: 'ERR_NOT_BUILT' });
    await assert.rejects(componentsOfCluster(uid), { code: 'ERR_NO_COMPONENTS' });
    await assert.rejects(builtComponents('v0.9.9'), { code: 'ERR_NOT_BUILT' });
  });

  it('stay what they were when the cache is built anew, and when it is cleared', async (t) => {
    const { uid, manifest, kubelet, own } = await world(t);
    await keepComponents(uid, await builtComponents(VERSION));
    await writeFile(`${kubelet}.part`, 'another');
    await rename(`${kubelet}.part`, kubelet);
    assert.equal(await readFile(own, 'utf8'), 'kubelet');
    await rm(componentsFolder(VERSION), { recursive: true });
    assert.equal(await readFile(own, 'utf8'), 'kubelet');
    assert.deepEqual(await componentsOfCluster(uid), manifest);
  });

  it('take no room of their own on the file system of the cache', async (t) => {
    const { uid, kubelet, own } = await world(t);
    const sameFileSystem = (await stat(kubelet)).dev === (await stat(clusterFolder(uid))).dev;
    if (!sameFileSystem) return t.skip('/var/tmp and /var/lib are on two file systems');
    await keepComponents(uid, await builtComponents(VERSION));
    assert.equal((await stat(own)).ino, (await stat(kubelet)).ino);
  });

  it('are copied from a cache on another file system', async (t) => {
    const { uid, kubelet, own } = await world(t, '/dev/shm');
    await keepComponents(uid, await builtComponents(VERSION));
    assert.notEqual((await stat(own)).dev, (await stat(kubelet)).dev);
    assert.equal(await readFile(own, 'utf8'), 'kubelet');
    assert.equal((await readdir(ownComponents(uid))).length, 3);
  });
});

it('a mirror gives files by their hash, nothing else, and goes on where one is missing', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-mirror-'));
  const server = await serveMirror('127.0.0.1', folder, 0);
  t.after(async () => {
    server.close();
    await rm(folder, { recursive: true });
  });
  const { port } = server.address() as AddressInfo;
  const ask = (path: string, method = 'GET') => fetch(`http://127.0.0.1:${port}${path}`, { method });
  await writeFile(join(folder, 'components.json'), '{}');
  await writeFile(join(folder, sha256('one')), 'one');
  await mkdir(join(folder, sha256('folder')));
  const missing = [
    `/components/${sha256('two')}`,
    '/components/',
    '/components/components.json',
    '/',
    '/components/..',
  ];
  for (const path of missing) assert.equal((await ask(path)).status, 404, path);
  assert.equal((await ask(`/components/${sha256('one')}`, 'POST')).status, 404);
  await assert.rejects(ask(`/components/${sha256('folder')}`).then((answer) => answer.arrayBuffer()));
  const answer = await ask(`/components/${sha256('one')}`);
  assert.equal(answer.headers.get('content-length'), '3');
  assert.equal(await answer.text(), 'one');
  await rm(join(folder, sha256('one')));
  assert.equal((await ask(`/components/${sha256('one')}`)).status, 404);
});
