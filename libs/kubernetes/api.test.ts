import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { UnreachableError } from '@asterism/errors/errors';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { inClusterApi, KubernetesApiError, type KubernetesApiOptions, kubernetesApi } from './api.ts';

const HOST = '127.0.0.1';
const TOKEN = 'topsecrettoken';

/** The real API server is used by the tests of the services; here are the servers that one would rather not meet. */
describe('a server in the place of the Kubernetes API', { timeout: 60_000 }, () => {
  let folder: TemporaryFolder;
  let cert: string;
  let otherCert: string;
  const stop: (() => void)[] = [];

  before(async () => {
    folder = await temporaryFolder();
    const make = (name: string) => {
      const files = ['-keyout', folder.file(`${name}.key`), '-out', folder.file(`${name}.crt`)];
      const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
      const names = ['-subj', '/CN=kubernetes', '-addext', `subjectAltName=IP:${HOST}`];
      execFileSync('openssl', ['req', '-x509', '-days', '1', ...key, ...names, ...files], {
        stdio: 'ignore',
      });
      return readFileSync(folder.file(`${name}.crt`), 'utf8');
    };
    cert = make('server');
    otherCert = make('other');
  });
  after(async () => {
    for (const end of stop) end();
    await folder?.[Symbol.asyncDispose]();
  });

  async function serve(
    answer: (request: IncomingMessage, response: ServerResponse) => void,
    options: Partial<KubernetesApiOptions> = {},
  ) {
    const server = createServer({ cert, key: readFileSync(folder.file('server.key')) }, answer);
    server.listen(0, HOST);
    await once(server, 'listening');
    stop.push(() => {
      server.closeAllConnections();
      server.close();
    });
    const { port } = server.address() as AddressInfo;
    return kubernetesApi({
      host: HOST,
      port,
      ca: cert,
      token: async () => TOKEN,
      timeoutMs: 1000,
      ...options,
    });
  }

  it('sends what it was given, with the token of the moment', async () => {
    const seen: unknown[] = [];
    let tokens = 0;
    const api = await serve(
      async (request, response) => {
        let body = '';
        for await (const chunk of request) body += chunk;
        const { authorization, 'content-type': type } = request.headers;
        seen.push([request.method, request.url, authorization, type, body]);
        response.end('{"metadata":{"name":"ä"}}');
      },
      { token: async () => `token-${++tokens}` },
    );
    assert.equal((await api.call('GET', '/api/v1/x?limit=1')).metadata?.name, 'ä');
    await api.call('POST', '/api/v1/x', { name: 'ä' });
    assert.deepEqual(seen, [
      ['GET', '/api/v1/x?limit=1', 'Bearer token-1', undefined, ''],
      ['POST', '/api/v1/x', 'Bearer token-2', 'application/json', '{"name":"ä"}'],
    ]);
  });

  for (const [what, status, body, message] of [
    ['not found', 404, '{"message":"x not found"}', /^GET \/x: 404 x not found$/],
    ['a conflict', 409, '{"message":"exists"}', /409 exists/],
    ['a redirect, which is not followed', 302, '{}', /^GET \/x: 302 $/],
    ['null', 500, 'null', /^GET \/x: 500 $/],
    ['a long message', 500, JSON.stringify({ message: 'y'.repeat(5000) }), /^GET \/x: 500 y{300}$/],
  ] as const) {
    it(`an error that says ${what}`, async () => {
      const api = await serve((_, response) => {
        response.writeHead(status, { location: 'https://127.0.0.1:1/' }).end(body);
      });
      await assert.rejects(api.call('GET', '/x?y=1'), (error: KubernetesApiError) => {
        assert.ok(error instanceof KubernetesApiError);
        assert.equal(error.status, status);
        assert.match(error.message, message);
        return true;
      });
    });
  }

  const hostile: [string, (request: IncomingMessage, response: ServerResponse) => void][] = [
    ['is not JSON', (_, response) => response.end('<html>')],
    ['is empty', (_, response) => response.end()],
    ['is a number', (_, response) => response.end('7')],
    ['is null', (_, response) => response.end('null')],
    ['never comes', () => {}],
    ['never ends', (_, response) => void setInterval(() => response.write(' '), 50).unref()],
    [
      'has no end',
      (_, response) => {
        const more = () => {
          while (response.write(Buffer.alloc(1 << 16, 0x20)));
        };
        response.on('drain', more);
        more();
      },
    ],
    [
      'is cut off',
      (_, response) => {
        response.writeHead(200, { 'content-length': 100 }).write('{"metadata":{}');
        setTimeout(() => response.destroy(), 50);
      },
    ],
    ['is a closed connection', (request) => request.socket.destroy()],
  ];
  for (const [what, answer] of hostile) {
    it(`an answer that ${what} is none`, async () => {
      const api = await serve(answer);
      const started = performance.now();
      await assert.rejects(api.call('GET', '/x'), (error: Error) => {
        assert.ok(error instanceof UnreachableError, String(error));
        assert.doesNotMatch(`${error.message} ${error.cause}`, new RegExp(TOKEN));
        return true;
      });
      assert.ok(performance.now() - started < 4000);
    });
  }

  it('a server of another authority, or for another name, does not see the token', async () => {
    let seen = 0;
    const count = (_: IncomingMessage, response: ServerResponse) => {
      seen++;
      response.end('{}');
    };
    const foreign = await serve(count, { ca: otherCert });
    await assert.rejects(foreign.call('GET', '/x'), UnreachableError);
    const misnamed = await serve(count, { host: 'localhost' });
    await assert.rejects(misnamed.call('GET', '/x'), UnreachableError);
    assert.equal(seen, 0);
  });

  it('gives up when its caller does', async () => {
    const api = await serve(() => {}, { timeoutMs: 30_000 });
    await assert.rejects(api.call('GET', '/x', undefined, AbortSignal.timeout(100)), UnreachableError);
    await assert.rejects(api.call('GET', '/x', undefined, AbortSignal.abort()), UnreachableError);
  });

  it('nobody listens', async () => {
    const api = kubernetesApi({ host: HOST, port: 1, ca: cert, token: async () => TOKEN });
    await assert.rejects(api.call('GET', '/x'), UnreachableError);
  });

  it('outside of a pod there is no API', async () => {
    await assert.rejects(inClusterApi({}), { code: 'ERR_NO_CLUSTER' });
    await assert.rejects(inClusterApi({ KUBERNETES_SERVICE_HOST: 'x', KUBERNETES_SERVICE_PORT: 'y' }), {
      code: 'ERR_NO_CLUSTER',
    });
  });
});
