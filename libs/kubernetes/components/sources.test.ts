import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { UnreachableError } from '@asterism/errors/errors';
import { download } from './download.ts';
import { provideProgram } from './sources.ts';

const CONTENT = 'a program';
const PINNED = createHash('sha256').update(CONTENT).digest('hex');
const program = { name: 'tool', module: 'cni-plugins', package: 'example.com/none' };
const options = { signal: AbortSignal.timeout(60_000), onDetail: () => {} };

describe('a program from a mirror', () => {
  let folder: string;
  let mirror: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'asterism-sources-'));
    mirror = join(folder, 'mirror');
    await mkdir(mirror);
    process.env.ASTERISM_COMPONENTS_MIRROR = mirror;
  });
  afterEach(async () => {
    delete process.env.ASTERISM_COMPONENTS_MIRROR;
    await rm(folder, { recursive: true, force: true });
  });
  const provide = () => provideProgram(program, { pinned: PINNED }, join(folder, 'bin'), options);

  it('is taken when its bytes are the pinned ones', async () => {
    await writeFile(join(mirror, PINNED), CONTENT);
    await provide();
    assert.equal(await readFile(join(folder, 'bin/tool'), 'utf8'), CONTENT);
  });

  it('is refused when a byte differs, and nothing of it stays', async () => {
    await writeFile(join(mirror, PINNED), `${CONTENT}!`);
    await assert.rejects(provide(), { code: 'ERR_COMPONENT_HASH' });
    assert.deepEqual(await readdir(join(folder, 'bin')), []);
  });

  it('comes over HTTP too, and a truncated answer is refused', async () => {
    let body = CONTENT;
    const server = createServer((request, response) => {
      if (request.url === `/files/${PINNED}`) response.end(body);
      else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    process.env.ASTERISM_COMPONENTS_MIRROR = `http://127.0.0.1:${(server.address() as AddressInfo).port}/files/`;
    body = CONTENT.slice(0, 4);
    await assert.rejects(provide(), { code: 'ERR_COMPONENT_HASH' });
    body = CONTENT;
    await provide();
    server.close();
    assert.equal(await readFile(join(folder, 'bin/tool'), 'utf8'), CONTENT);
  });

  it('that answers without end, or breaks off, gives nothing', async () => {
    let broken = false;
    const server = createServer((_request, response) => {
      response.writeHead(200, { 'content-length': 1_000_000 });
      response.write('x'.repeat(1000));
      broken = true;
      response.destroy();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/tool`;
    const limits = { signal: options.signal, maxBytes: 1 << 20, advice: 'none' };
    const to = join(folder, 'download');
    await assert.rejects(download(url, to, limits), UnreachableError);
    assert.ok(broken);
    server.removeAllListeners('request');
    server.on('request', (_request, response) => response.end('x'.repeat(2 << 20)));
    await assert.rejects(download(url, to, limits), { message: /more than 1048576 bytes/ });
    server.closeAllConnections();
    server.close();
    assert.deepEqual(await readdir(folder), ['mirror']);
  });
});

describe('a program as its project publishes it', () => {
  it('is taken with the published bytes and refused with others', async () => {
    delete process.env.ASTERISM_COMPONENTS_MIRROR;
    const folder = await mkdtemp(join(tmpdir(), 'asterism-sources-'));
    let body = 'tampered!';
    const server = createServer((_request, response) => response.end(body));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/tool`;
    const source = { pinned: '0'.repeat(64), official: { url, sha256: PINNED, orBuild: true } };
    const provide = () => provideProgram(program, source, folder, options);
    await assert.rejects(provide(), { code: 'ERR_COMPONENT_HASH' });
    assert.deepEqual(await readdir(folder), []);
    body = CONTENT;
    await provide();
    assert.equal(await readFile(join(folder, 'tool'), 'utf8'), CONTENT);
    server.close();
    await rm(folder, { recursive: true });
  });

  describe('that does not answer', () => {
    let nobody: string;
    let folder: string;
    beforeEach(async () => {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      nobody = `http://127.0.0.1:${(server.address() as AddressInfo).port}/tool`;
      await new Promise((resolve) => server.close(resolve));
      delete process.env.ASTERISM_COMPONENTS_MIRROR;
      folder = await mkdtemp(join(tmpdir(), 'asterism-sources-'));
    });
    afterEach(() => rm(folder, { recursive: true, force: true }));

    it('is an error where only the official file will do', async () => {
      const source = { pinned: undefined, official: { url: nobody, sha256: PINNED, orBuild: false } };
      await assert.rejects(provideProgram(program, source, folder, options), UnreachableError);
      assert.deepEqual(await readdir(folder), []);
    });

    it('is built instead where that is allowed, and says so', async () => {
      const details: string[] = [];
      const pause = { name: 'pause', module: 'pause', package: '.' };
      const source = { pinned: undefined, official: { url: nobody, sha256: PINNED, orBuild: true } };
      const onDetail = (text: string) => details.push(text);
      assert.equal(await provideProgram(pause, source, folder, { ...options, onDetail }), true);
      assert.ok((await stat(join(folder, 'pause'))).size > 0);
      assert.match(details.join('\n'), /cannot download .*it is built instead\n.*building pause/s);
    });

    it('is not asked where the mirror has what building would give', async () => {
      process.env.ASTERISM_COMPONENTS_MIRROR = folder;
      await writeFile(join(folder, PINNED), CONTENT);
      const source = { pinned: PINNED, official: { url: nobody, sha256: 'f'.repeat(64), orBuild: true } };
      assert.equal(await provideProgram(program, source, join(folder, 'bin'), options), false);
      assert.equal(await readFile(join(folder, 'bin/tool'), 'utf8'), CONTENT);
      const only = { ...source, official: { ...source.official, orBuild: false } };
      await assert.rejects(provideProgram(program, only, join(folder, 'other'), options), UnreachableError);
      delete process.env.ASTERISM_COMPONENTS_MIRROR;
    });
  });
});
