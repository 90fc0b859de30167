import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { after, before, it } from 'node:test';
import { httpMetadata } from './http-metadata.ts';

let folder: string;
let server: Server;
let handler: RequestListener;
before(async () => {
  folder = await mkdtemp(`${tmpdir()}/asterism-metadata-`);
  server = createServer((request, response) => handler(request, response));
  await new Promise<void>((resolve) => server.listen(`${folder}/socket`, resolve));
});
after(async () => {
  server.closeAllConnections();
  server.close();
  await rm(folder, { recursive: true, force: true });
});

const node = {
  Name: 'CP-0',
  ProviderID: 'local:///cp-0',
  Role: 'control-plane',
  VPCIP: '10.77.1.2',
  AliasIPRanges: null,
};

const HASH = `$2b$10$${'a'.repeat(53)}`;

it('reads what a provider says', async () => {
  handler = (request, response) => {
    const answers: Record<string, string> = {
      '/self': JSON.stringify(node),
      '/peers': JSON.stringify([node, { ...node, Role: 'WORKER', VPCIP: '' }, { ...node, Role: '?' }]),
      '/endpoint': '"10.77.1.1"',
      '/initsecrethash': `${HASH}\n`,
    };
    response.end(answers[request.url ?? '']);
  };
  const metadata = httpMetadata(`unix:${folder}/socket`);
  assert.equal((await metadata.self()).role, 'ControlPlane');
  const [, worker, other] = await metadata.list();
  assert.deepEqual([worker?.role, worker?.vpcIp, other?.role], ['Worker', undefined, 'Unknown']);
  assert.equal(await metadata.loadBalancerEndpoint(), '10.77.1.1');
  assert.equal(await metadata.initSecretHash(), HASH);
});

it('refuses answers that are malformed, too large or no answers', async () => {
  const metadata = httpMetadata(`unix:${folder}/socket`);
  for (const text of [
    '',
    '{',
    '[]',
    '{"Name":""}',
    JSON.stringify({ ...node, Role: 7 }),
    JSON.stringify({ ...node, VPCIP: '10.77.1.2, 10.77.1.3' }),
  ]) {
    handler = (_, response) => response.end(text);
    await assert.rejects(metadata.self(), { code: 'ERR_PARSE' }, text);
  }
  handler = (_, response) => response.end(Buffer.alloc(2 << 20, 'x'));
  await assert.rejects(metadata.list(), { code: 'ERR_UNREACHABLE' });
  handler = (_, response) => response.writeHead(404).end();
  await assert.rejects(metadata.self(), { code: 'ERR_UNREACHABLE' });
  await assert.rejects(httpMetadata(`unix:${folder}/none`).self(), { code: 'ERR_UNREACHABLE' });
});

it('refuses an endpoint or a hash that is something else', async () => {
  const metadata = httpMetadata(`unix:${folder}/socket`);
  for (const text of ['""', '"a/b"', '"host:port"', '"a b"', '7']) {
    handler = (_, response) => response.end(text);
    await assert.rejects(metadata.loadBalancerEndpoint(), { code: 'ERR_PARSE' }, text);
  }
  for (const text of ['', 'secret', '$1$abc', `${HASH}${HASH}`]) {
    handler = (_, response) => response.end(text);
    await assert.rejects(metadata.initSecretHash(), { code: 'ERR_PARSE' }, text);
  }
});

it('gives up on a server that answers a byte at a time, and when its caller does', async () => {
  const metadata = httpMetadata(`unix:${folder}/socket`);
  handler = (request, response) => {
    const drip = setInterval(() => response.write('x'), 200);
    request.socket.on('close', () => clearInterval(drip));
  };
  const started = performance.now();
  await assert.rejects(metadata.self(AbortSignal.timeout(300)), { code: 'ERR_UNREACHABLE' });
  assert.ok(performance.now() - started < 5000);
  await assert.rejects(metadata.self(), { code: 'ERR_UNREACHABLE' });
  assert.ok(performance.now() - started < 20_000);
});

it('speaks over TCP as well', async () => {
  handler = (_, response) => response.end(JSON.stringify(node));
  const tcp = createServer((request, response) => handler(request, response));
  await new Promise<void>((resolve) => tcp.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = tcp.address() as AddressInfo;
    assert.equal((await httpMetadata(`http://127.0.0.1:${port}`).self()).name, 'CP-0');
  } finally {
    tcp.close();
  }
});
