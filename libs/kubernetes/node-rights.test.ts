import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Kube, startKube } from '@asterism/testkit/kube';
import type { KubernetesObject } from './api.ts';
import { nodeRights } from './node-rights.ts';

const REVIEWS = '/apis/authorization.k8s.io/v1/subjectaccessreviews';
const CSRS = { group: 'certificates.k8s.io', resource: 'certificatesigningrequests' };

describe('rights of nodes, as a real API server sees them', { timeout: 240_000 }, () => {
  let kube: Kube;
  before(async () => {
    kube = await startKube();
    await kube.apply(nodeRights());
  });
  after(() => kube?.[Symbol.asyncDispose]());

  interface Who {
    readonly user: string;
    readonly groups: readonly string[];
  }
  const worker: Who = { user: 'system:node:worker-0', groups: ['system:nodes', 'system:authenticated'] };
  const token: Who = {
    user: 'system:bootstrap:abcdef',
    groups: [
      'system:bootstrappers',
      'system:bootstrappers:kubeadm:default-node-token',
      'system:authenticated',
    ],
  };
  const may = async ({ user, groups }: Who, resourceAttributes: object): Promise<boolean> => {
    const review = await kube.admin.call<Review>('POST', REVIEWS, {
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SubjectAccessReview',
      spec: { user, groups, resourceAttributes },
    });
    return review.status.allowed;
  };

  // What the approver of certificates asks: `nodeclient` is any node's name, `selfnodeclient` the requester's own.
  it("a node's request for its own certificate is approved, one for another node's is not", async () => {
    assert.equal(await may(worker, { ...CSRS, verb: 'create' }), true);
    assert.equal(await may(worker, { ...CSRS, subresource: 'selfnodeclient', verb: 'create' }), true);
    assert.equal(await may(worker, { ...CSRS, subresource: 'nodeclient', verb: 'create' }), false);
    assert.equal(await may(worker, { ...CSRS, subresource: 'approval', verb: 'update' }), false);
  });

  it('a worker reads no Secret that no pod of its own mounts', async () => {
    const secrets = { resource: 'secrets', namespace: 'kube-system' };
    for (const verb of ['list', 'watch']) assert.equal(await may(worker, { ...secrets, verb }), false);
    const master = { ...secrets, name: 'asterism-mastersecret', verb: 'get' };
    assert.equal(await may(worker, master), false);
  });

  it('a bootstrap token would be nobody', async () => {
    for (const subresource of ['', 'nodeclient', 'selfnodeclient'])
      assert.equal(await may(token, { ...CSRS, subresource, verb: 'create' }), false);
    assert.equal(await may(token, { resource: 'nodes', verb: 'get', name: 'worker-0' }), false);
  });

  it('the API server reaches kubelets', async () => {
    const apiServer = { user: 'kube-apiserver-kubelet-client', groups: ['system:authenticated'] };
    for (const subresource of ['proxy', 'log', 'metrics'])
      assert.equal(await may(apiServer, { resource: 'nodes', subresource, verb: 'get' }), true);
  });
});

interface Review extends KubernetesObject {
  readonly status: { readonly allowed: boolean };
}
