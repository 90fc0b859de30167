import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, it } from 'node:test';
import { UnreachableError } from '@asterism/errors/errors';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { download } from './download.ts';
import { networkEnvironment } from './proxy.ts';

const NAMES = ['http_proxy', 'HTTP_PROXY', 'no_proxy', 'NO_PROXY'];
const before = Object.fromEntries(NAMES.map((name) => [name, process.env[name]]));
const limits = { signal: AbortSignal.timeout(60_000), maxBytes: 1000, advice: 'none' };

afterEach(() => {
  for (const name of NAMES) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
});

async function serve(listener: RequestListener) {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

for (const name of ['http_proxy', 'HTTP_PROXY']) {
  it(`goes through the proxy that ${name} names, but for what NO_PROXY names`, async () => {
    await using folder = await temporaryFolder();
    await using proxy = await serve((request, response) => response.end(`proxied ${request.url}`));
    await using direct = await serve((_request, response) => response.end('direct'));
    process.env[name] = proxy.url;
    await download('http://files.invalid/x', folder.file('x'), limits);
    assert.equal(await readFile(folder.file('x'), 'utf8'), 'proxied http://files.invalid/x');
    process.env.NO_PROXY = '127.0.0.1';
    await download(`${direct.url}/x`, folder.file('x'), limits);
    assert.equal(await readFile(folder.file('x'), 'utf8'), 'direct');
    assert.equal(networkEnvironment()[name], proxy.url);
    assert.equal(networkEnvironment().NO_PROXY, '127.0.0.1');
  });
}

it('follows redirects, but not for ever', async () => {
  await using folder = await temporaryFolder();
  await using server = await serve((request, response) => {
    const left = Number(request.url?.slice(1));
    if (left === 0) response.end('there');
    else response.writeHead(302, { location: `/${left - 1}` }).end();
  });
  await download(`${server.url}/5`, folder.file('x'), limits);
  assert.equal(await readFile(folder.file('x'), 'utf8'), 'there');
  await assert.rejects(download(`${server.url}/6`, folder.file('y'), limits), /more than 5 redirects/);
  assert.deepEqual(await readdir(folder.path), ['x']);
});

for (const [what, listener] of [
  ['an error', (_request, response) => response.writeHead(500).end()],
  ['a redirect to nowhere', (_request, response) => response.writeHead(302).end()],
  [
    'a redirect to a file',
    (_request, response) => response.writeHead(302, { location: 'file:///etc/passwd' }).end(),
  ],
  ['nothing', (_request, response) => response.destroy()],
] as readonly (readonly [string, RequestListener])[]) {
  it(`leaves nothing where the answer is ${what}`, async () => {
    await using folder = await temporaryFolder();
    await using server = await serve(listener);
    await assert.rejects(download(server.url, folder.file('x'), limits), UnreachableError);
    assert.deepEqual(await readdir(folder.path), []);
  });
}

it('ends when the caller gives up', async () => {
  await using folder = await temporaryFolder();
  const stop = new AbortController();
  await using server = await serve((_request, response) => {
    response.write('some');
    stop.abort();
  });
  await assert.rejects(download(server.url, folder.file('x'), { ...limits, signal: stop.signal }), {
    name: 'AbortError',
  });
  assert.deepEqual(await readdir(folder.path), []);
});
