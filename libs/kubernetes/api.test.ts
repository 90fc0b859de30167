import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { UnreachableError } from '@asterism/errors/errors';
import { type Kube, startKube } from '@asterism/testkit/kube';
import { inClusterApi, type KubernetesApi, KubernetesApiError, kubernetesApi } from './api.ts';
import { ClusterCa } from './ca.ts';

const CONFIG_MAPS = '/api/v1/namespaces/kube-system/configmaps';
const status = (code: number) => (error: KubernetesApiError) => {
  assert.ok(error instanceof KubernetesApiError, String(error));
  assert.equal(error.status, code);
  return true;
};

describe('calls to a Kubernetes API', { timeout: 240_000 }, () => {
  let kube: Kube;
  let hostile: Server;
  /** How the hostile server answers. */
  let behave: (response: ServerResponse) => void;

  before(async () => {
    kube = await startKube();
    const own = await (await ClusterCa.load(kube.pki)).servingCertificate(['localhost'], 3_600_000);
    hostile = createServer(own, (_, response) => behave(response));
    await new Promise<void>((resolve) => hostile.listen(0, 'localhost', resolve));
  });
  after(async () => {
    hostile?.closeAllConnections();
    hostile?.close();
    await kube?.[Symbol.asyncDispose]();
  });

  const hostileApi = (): KubernetesApi =>
    kubernetesApi({
      host: 'localhost',
      port: (hostile.address() as AddressInfo).port,
      ca: kube.ca,
      token: async () => 'TOPSECRET',
      timeoutMs: 500,
    });

  it('objects are made once, changed by who saw the last change, and removed', async () => {
    const object = { metadata: { name: 'a' }, data: { x: '1' } };
    await kube.admin.call('POST', CONFIG_MAPS, object);
    await assert.rejects(kube.admin.call('POST', CONFIG_MAPS, object), status(409));
    const seen = await kube.admin.call('GET', `${CONFIG_MAPS}/a`);
    await kube.admin.call('PUT', `${CONFIG_MAPS}/a`, { ...seen, data: { x: '2' } });
    await assert.rejects(
      kube.admin.call('PUT', `${CONFIG_MAPS}/a`, { ...seen, data: { x: '3' } }),
      status(409),
    );
    assert.deepEqual((await kube.admin.call('GET', `${CONFIG_MAPS}/a`)).data, { x: '2' });
    await kube.admin.call('DELETE', `${CONFIG_MAPS}/a`);
    await assert.rejects(kube.admin.call('GET', `${CONFIG_MAPS}/a`), status(404));
  });

  it('a wrong token, and a server of another CA', async () => {
    const { host, port, ca } = kube;
    const wrong = kubernetesApi({ host, port, ca, token: async () => 'TOPSECRET' });
    await assert.rejects(wrong.call('GET', CONFIG_MAPS), (error: Error) => {
      assert.ok(status(401)(error as KubernetesApiError));
      assert.doesNotMatch(error.message, /TOPSECRET/);
      return true;
    });
    const otherCa = await readFile(`${kube.pki}/front-proxy-ca.crt`, 'utf8');
    const other = kubernetesApi({ host, port, ca: otherCa, token: async () => '' });
    await assert.rejects(other.call('GET', CONFIG_MAPS), UnreachableError);
  });

  for (const [what, act] of [
    ['never answers', () => {}],
    ['never ends its answer', (response) => response.write('{')],
    ['answers with no JSON', (response) => response.end('<html>')],
    ['answers with null', (response) => response.end('null')],
    ['answers without end', (response) => void endless(response)],
    ['closes the connection', (response) => response.destroy()],
  ] as [string, (response: ServerResponse) => void][]) {
    it(`a server that ${what}`, async () => {
      behave = act;
      await assert.rejects(hostileApi().call('GET', '/api'), UnreachableError);
    });
  }

  it('an error without a message is still one', async () => {
    behave = (response) => response.writeHead(500).end('null');
    await assert.rejects(hostileApi().call('GET', '/api'), status(500));
  });

  it('a caller that gives up is not kept waiting', async () => {
    behave = () => {};
    const started = performance.now();
    await assert.rejects(
      hostileApi().call('GET', '/api', undefined, AbortSignal.timeout(50)),
      UnreachableError,
    );
    assert.ok(performance.now() - started < 400);
  });

  it('outside of a pod there is no cluster', async () => {
    await assert.rejects(inClusterApi({}), { code: 'ERR_NO_CLUSTER' });
  });
});

async function endless(response: ServerResponse): Promise<void> {
  const chunk = Buffer.alloc(1 << 20, 0x20);
  while (!response.destroyed) {
    response.write(chunk);
    await new Promise(setImmediate);
  }
}
