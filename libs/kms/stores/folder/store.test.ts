import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { storeContract } from '@asterism/testkit/kms-contract';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import type { DekStore } from '../../store.ts';
import { openFolderStore } from './store.ts';

let folder: TemporaryFolder;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder[Symbol.asyncDispose]());

describe('a folder', { timeout: 60_000 }, () => {
  let store: DekStore;
  before(async () => {
    store = await openFolderStore(folder.file('contract'));
  });
  storeContract(() => store);

  test('afterwards nothing is left, not even half-written files', async () => {
    assert.deepEqual(await readdir(folder.file('contract')), []);
  });
});

test('nobody else reads it', async () => {
  const path = folder.file('rights');
  await mkdir(path, { mode: 0o755 });
  const store = await openFolderStore(path);
  await store.create('key-x', new Uint8Array(3));
  const { version } = (await store.get('key-x'))!;
  await store.replace('key-x', new Uint8Array(4), version);
  assert.equal((await stat(path)).mode & 0o777, 0o700);
  assert.equal((await stat(`${path}/key-x`)).mode & 0o777, 0o600);
});

test('of several processes that replace at once, one does each time', { timeout: 60_000 }, async () => {
  const path = folder.file('processes');
  const store = await openFolderStore(path);
  await store.create('key-n', new TextEncoder().encode('0'));
  // Each adds 20: with a lost update the sum is less.
  const adder = `
    const { openFolderStore } = await import(${JSON.stringify(new URL('./store.ts', import.meta.url).href)});
    const store = await openFolderStore(${JSON.stringify(path)});
    for (let done = 0; done < 20; ) {
      const { bytes, version } = await store.get('key-n');
      const next = new TextEncoder().encode(String(Number(new TextDecoder().decode(bytes)) + 1));
      if ((await store.replace('key-n', next, version)) === 'replaced') done++;
    }`;
  const codes = await Promise.all(
    [1, 2, 3].map(async () => {
      const child = spawn(process.execPath, ['--input-type=module', '--eval', adder], {
        stdio: ['ignore', 'ignore', 'inherit'],
        timeout: 50_000,
      });
      return (await once(child, 'exit'))[0];
    }),
  );
  assert.deepEqual(codes, [0, 0, 0]);
  assert.equal(await readFile(`${path}/key-n`, 'utf8'), '60');
});

test('what is no file of a wrapped key is not read', async () => {
  const path = folder.file('strange');
  const store = await openFolderStore(path);
  await writeFile(folder.file('elsewhere'), 'x');
  await symlink(folder.file('elsewhere'), `${path}/key-link`);
  await mkdir(`${path}/key-folder`);
  await writeFile(`${path}/key-large`, new Uint8Array(64 * 1024 + 1));
  await once(spawn('mkfifo', [`${path}/key-pipe`]), 'exit');
  for (const name of ['key-link', 'key-folder', 'key-large', 'key-pipe'])
    await assert.rejects(store.get(name), { code: 'ERR_STORE_ANSWER' }, name);
});

test('a folder that is gone, and one that may not be written', async () => {
  const path = folder.file('gone');
  const store = await openFolderStore(path);
  await rm(path, { recursive: true });
  await assert.rejects(store.create('key-x', new Uint8Array(1)), { code: 'ERR_STORE_NOT_FOUND' });
  await assert.rejects(store.replace('key-x', new Uint8Array(1), ''), { code: 'ERR_STORE_NOT_FOUND' });
  await writeFile(path, '');
  await assert.rejects(openFolderStore(path), { name: 'KmsError' });
});

test('a disk that is full', { skip: process.getuid?.() !== 0 && 'only root mounts' }, async (t) => {
  const path = folder.file('full');
  await mkdir(path);
  const mount = spawn('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', path], { stdio: 'ignore' });
  const [code] = await once(mount, 'exit');
  if (code !== 0) return t.skip('mounting is not possible here');
  try {
    const store = await openFolderStore(path);
    await assert.rejects(
      (async () => {
        for (let i = 0; i < 20; i++) await store.create(`key-${i}`, new Uint8Array(20_000));
      })(),
      { name: 'KmsUnavailableError', code: 'ERR_STORE_UNAVAILABLE' },
    );
    for await (const name of store.list()) assert.equal((await store.get(name))?.bytes.length, 20_000);
    assert.ok((await readdir(path)).every((name) => !name.endsWith('.tmp')));
  } finally {
    await once(spawn('umount', [path], { stdio: 'ignore' }), 'exit');
  }
});
