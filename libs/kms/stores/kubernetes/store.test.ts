import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { UnreachableError } from '@asterism/errors/errors';
import { type KubernetesApi, KubernetesApiError, kubernetesApi } from '@asterism/kubernetes/api';
import { freePort } from '@asterism/testkit/free-port';
import { storeContract } from '@asterism/testkit/kms-contract';
import { type Kube, startKube } from '@asterism/testkit/kube';
import { KEYS_NAMESPACE, secretOf } from './secret.ts';
import { kubernetesStore } from './store.ts';

const SECRETS = `/api/v1/namespaces/${KEYS_NAMESPACE}/secrets`;
const bytes = (length: number, value = 1) => new Uint8Array(length).fill(value);

const collect = async (names: AsyncIterable<string>) => {
  const all: string[] = [];
  for await (const name of names) all.push(name);
  return all;
};

let kube: Kube;
before(
  async () => {
    kube = await startKube();
  },
  { timeout: 240_000 },
);
after(() => kube[Symbol.asyncDispose]());

test('without its namespace nothing is kept', async () => {
  const store = kubernetesStore(kube.admin);
  assert.equal(await store.get('key-x'), undefined);
  await assert.rejects(store.create('key-x', bytes(3)), { code: 'ERR_STORE_NOT_FOUND' });
  await kube.apply(`apiVersion: v1\nkind: Namespace\nmetadata: {name: ${KEYS_NAMESPACE}}\n`);
});

describe('Secrets of a real API server', { timeout: 120_000 }, () => {
  storeContract(() => kubernetesStore(kube.admin));

  test('ids that differ in case alone are two', async () => {
    const store = kubernetesStore(kube.admin);
    await store.create('key-Case', bytes(3, 1));
    assert.equal(await store.create('key-case', bytes(3, 2)), 'created');
    assert.deepEqual((await store.get('key-Case'))?.bytes, bytes(3, 1));
  });

  test('what a manifest made is read', async () => {
    await kube.apply(JSON.stringify(secretOf('key-manifest', bytes(5))));
    assert.deepEqual((await kubernetesStore(kube.admin).get('key-manifest'))?.bytes, bytes(5));
  });

  test("another's Secret is neither listed nor read, and stays", async () => {
    const store = kubernetesStore(kube.admin);
    const names = async () => (await collect(store.list())).sort();
    const before = await names();
    const foreign = { metadata: { name: 'foreign' }, type: 'Opaque', data: {} };
    const renamed = secretOf('key-renamed', bytes(3)) as { metadata: object };
    const opaque = { ...(secretOf('key-opaque', bytes(3)) as object), type: 'Opaque' };
    await kube.create(SECRETS, foreign);
    await kube.create(SECRETS, { ...renamed, metadata: { ...renamed.metadata, name: 'dek-renamed' } });
    await kube.create(SECRETS, opaque);
    assert.deepEqual(await names(), before);
    assert.equal(await store.get('key-renamed'), undefined);
    await assert.rejects(store.get('key-opaque'), { code: 'ERR_STORE_ANSWER' });
  });

  test('a Secret that was given the id of another is not read', async () => {
    const store = kubernetesStore(kube.admin);
    const one = secretOf('key-one-of-two', bytes(3)) as { metadata: { annotations: object } };
    const annotations = { 'asterism.dev/dek-id': 'key-other' };
    await kube.create(SECRETS, { ...one, metadata: { ...one.metadata, annotations } });
    await assert.rejects(store.get('key-one-of-two'), { code: 'ERR_STORE_ANSWER' });
  });

  test('without rights, without identity, without a server', async () => {
    await kube.apply(
      'apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: nobody, namespace: kube-system}\n',
    );
    await assert.rejects(kubernetesStore(await kube.as('nobody')).get('key-x'), { code: 'ERR_STORE_DENIED' });
    const { host, port, ca } = kube;
    const unknown = kubernetesApi({ host, port, ca, token: async () => 'wrong' });
    await assert.rejects(kubernetesStore(unknown).get('key-x'), { code: 'ERR_STORE_CREDENTIALS' });
    const nowhere = kubernetesApi({ host, port: await freePort(), ca, token: async () => 'x' });
    const store = kubernetesStore(nowhere);
    for (const call of [
      store.get('key-x'),
      store.create('key-x', bytes(1)),
      store.list()[Symbol.asyncIterator]().next(),
    ])
      await assert.rejects(call, { name: 'KmsUnavailableError', code: 'ERR_STORE_UNAVAILABLE' });
  });

  /** The real server, but the n-th listing is answered with an error. */
  const failing = (n: number, error: Error): KubernetesApi => {
    let listings = 0;
    return {
      call: async (method, path, body, signal) => {
        if (method === 'GET' && path.includes('limit=') && ++listings === n) throw error;
        return kube.admin.call(method, path, body, signal);
      },
    };
  };

  test('a listing that expires goes on, with each name once', async () => {
    const store = kubernetesStore(kube.admin);
    await Promise.all(Array.from({ length: 120 }, (_, i) => store.create(`key-Many.${i}`, bytes(10))));
    const all = await collect(store.list());
    assert.equal(all.filter((name) => name.startsWith('key-Many.')).length, 120);
    const gone = new KubernetesApiError('GET', 410, 'Expired');
    for (const n of [2, 3]) assert.deepEqual(await collect(kubernetesStore(failing(n, gone)).list()), all);
    await assert.rejects(collect(kubernetesStore(failing(1, gone)).list()), {
      code: 'ERR_STORE_ANSWER',
    });
  });

  test('a listing that breaks off is an error, not a short list', async () => {
    for (const [error, code] of [
      [new UnreachableError('no answer'), 'ERR_STORE_UNAVAILABLE'],
      [new KubernetesApiError('GET', 429, 'slow down'), 'ERR_STORE_THROTTLED'],
      [new KubernetesApiError('GET', 500, 'etcd'), 'ERR_STORE_UNAVAILABLE'],
    ] as const)
      await assert.rejects(collect(kubernetesStore(failing(2, error)).list()), { code });
  });
});
