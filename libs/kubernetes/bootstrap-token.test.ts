import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type Kube, startKube } from '@asterism/testkit/kube';
import { type KubernetesApi, KubernetesApiError, type KubernetesObject, kubernetesApi } from './api.ts';
import { createBootstrapToken, TOKEN_LIFETIME_MS } from './bootstrap-token.ts';

const SECRETS = '/api/v1/namespaces/kube-system/secrets';
const REVIEWS = '/apis/authentication.k8s.io/v1/selfsubjectreviews';

describe('bootstrap tokens, as a real API server takes them', { timeout: 240_000 }, () => {
  let kube: Kube;
  before(async () => {
    kube = await startKube();
  });
  after(() => kube?.[Symbol.asyncDispose]());

  const apiFor = (token: string): KubernetesApi =>
    kubernetesApi({ host: kube.host, port: kube.port, ca: kube.ca, token: async () => token });
  const whoami = async (token: string) => {
    const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' };
    return (await apiFor(token).call<Review>('POST', REVIEWS, review)).status.userInfo;
  };
  const counts = (token: string) =>
    whoami(token).then(
      () => true,
      (error) => {
        if (stranger(error)) return false;
        throw error;
      },
    );
  /** The server sees Secrets through a watch, a moment late, and remembers good tokens for 10 s. */
  const until = async (wanted: boolean, token: string) => {
    const limit = Date.now() + 20_000;
    while ((await counts(token)) !== wanted) {
      assert.ok(Date.now() < limit, `the token ${wanted ? 'does not count yet' : 'still counts'}`);
      await delay(100);
    }
  };
  const dataOf = async (token: string) => {
    const name = `bootstrap-token-${token.split('.')[0]}`;
    const secret = await kube.admin.call<Secret>('GET', `${SECRETS}/${name}`);
    const fields = Object.entries(secret.data).map(([key, value]) => [
      key,
      Buffer.from(value, 'base64').toString(),
    ]);
    return { secret, fields: Object.fromEntries(fields) as Record<string, string> };
  };
  const stranger = (error: KubernetesApiError) => error instanceof KubernetesApiError && error.status === 401;

  it('has the form that kubeadm wants, and lasts a quarter of an hour', async () => {
    const token = await createBootstrapToken(kube.admin, 'worker-0 joins');
    assert.match(token, /^[a-z0-9]{6}\.[a-z0-9]{16}$/);
    const { secret, fields } = await dataOf(token);
    assert.equal(secret.type, 'bootstrap.kubernetes.io/token');
    const { expiration, ...rest } = fields;
    assert.deepEqual(rest, {
      'token-id': token.slice(0, 6),
      'token-secret': token.slice(7),
      description: 'worker-0 joins',
      'usage-bootstrap-authentication': 'true',
      'usage-bootstrap-signing': 'true',
      'auth-extra-groups': 'system:bootstrappers:kubeadm:default-node-token',
    });
    // RFC 3339 without fractions of a second.
    assert.match(expiration!, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    const left = Date.parse(expiration!) - Date.now();
    assert.ok(left > TOKEN_LIFETIME_MS - 10_000 && left <= TOKEN_LIFETIME_MS, `${left} ms`);
  });

  it('is a joining node, and nothing else', async () => {
    const token = await createBootstrapToken(kube.admin, 'x');
    await until(true, token);
    const { username, groups } = await whoami(token);
    assert.equal(username, `system:bootstrap:${token.slice(0, 6)}`);
    assert.deepEqual([...groups].sort(), [
      'system:authenticated',
      'system:bootstrappers',
      'system:bootstrappers:kubeadm:default-node-token',
    ]);
    for (const path of [SECRETS, '/api/v1/nodes', '/api/v1/namespaces/kube-system/configmaps'])
      await assert.rejects(
        apiFor(token).call('GET', path),
        (error: KubernetesApiError) => error.status === 403,
      );
  });

  it('counts for nothing with another secret, and when it has expired', async () => {
    const token = await createBootstrapToken(kube.admin, 'x');
    await until(true, token);
    const wrong = `${token.slice(0, -1)}${token.endsWith('a') ? 'b' : 'a'}`;
    await assert.rejects(whoami(wrong), stranger);
    const { secret } = await dataOf(token);
    const expiration = Buffer.from(new Date(Date.now() - 1000).toISOString().replace(/\.\d+/, '')).toString(
      'base64',
    );
    await kube.admin.call('PUT', `${SECRETS}/${secret.metadata?.name}`, {
      ...secret,
      data: { ...secret.data, expiration },
    });
    await until(false, token);
    await assert.rejects(whoami(token), stranger);
  });

  it('is never the same', async () => {
    const tokens = await Promise.all(Array.from({ length: 50 }, () => createBootstrapToken(kube.admin, 'x')));
    assert.equal(new Set(tokens.map((token) => token.slice(7))).size, 50);
    // Every character of the alphabet turns up: 800 draws of 36.
    assert.equal(new Set(tokens.join('').replaceAll('.', '')).size, 36);
  });

  it('is not made for who may not make it', async () => {
    await kube.create('/api/v1/namespaces/kube-system/serviceaccounts', { metadata: { name: 'nobody' } });
    const nobody = await kube.as('nobody');
    await assert.rejects(
      createBootstrapToken(nobody, 'x'),
      (error: KubernetesApiError) => error.status === 403,
    );
    await assert.rejects(createBootstrapToken(kube.admin, 'x', AbortSignal.abort()));
  });
});

interface Secret extends KubernetesObject {
  readonly type: string;
  readonly data: Readonly<Record<string, string>>;
}
interface Review extends KubernetesObject {
  readonly status: { readonly userInfo: { readonly username: string; readonly groups: readonly string[] } };
}
