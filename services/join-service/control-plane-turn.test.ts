import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { UnreachableError } from '@asterism/errors/errors';
import type { KubernetesApi } from '@asterism/kubernetes/api';
import { StatusError } from '@asterism/rpc/status';
import { type Kube, startKube } from '@asterism/testkit/kube';
import { takeTurn } from './control-plane-turn.ts';

const LEASES = '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases';
const LEASE = `${LEASES}/asterism-control-plane-join`;
const NODES = Array.from({ length: 8 }, (_, n) => `control-plane-${n}`);

describe('the turn of control planes, at a real API server', { timeout: 240_000 }, () => {
  let kube: Kube;
  let api: KubernetesApi;
  const signal = AbortSignal.timeout(200_000);

  before(async () => {
    kube = await startKube();
    await kube.apply(
      await readFile(join(import.meta.dirname, '../../deploy/join-service/join-service.yaml'), 'utf8'),
    );
    api = await kube.as('join-service');
  });
  afterEach(() => kube.admin.call('DELETE', LEASE));
  after(() => kube?.[Symbol.asyncDispose]());

  const holder = async () =>
    (await kube.admin.call<{ spec: { holderIdentity?: string } }>('GET', LEASE)).spec.holderIdentity;
  const change = async (spec: object) => {
    const lease = await kube.admin.call('GET', LEASE);
    await kube.admin.call('PUT', LEASE, { ...lease, spec });
  };
  /** All ask at once. @returns whose turn it is */
  const race = async () => {
    const results = await Promise.allSettled(NODES.map((node) => takeTurn(api, node, signal)));
    const winners = NODES.filter((_, n) => results[n]!.status === 'fulfilled');
    for (const result of results)
      if (result.status === 'rejected') {
        assert.ok(result.reason instanceof StatusError, String(result.reason));
        assert.equal(`${result.reason.status} ${result.reason.code}`, 'UNAVAILABLE ERR_JOIN_TURN');
      }
    assert.equal(winners.length, 1, `winners: ${winners}`);
    assert.equal(await holder(), winners[0]);
    return winners[0]!;
  };

  it('of many that ask at once exactly one gets it, and keeps it', async () => {
    const winner = await race();
    assert.equal(await race(), winner);
    await takeTurn(api, winner, signal);
  });

  it('of many that ask when a turn has expired exactly one gets it', async () => {
    await takeTurn(api, 'control-plane-gone', signal);
    const renewTime = new Date(Date.now() - 601_000).toISOString().replace('Z', '000Z');
    await change({ holderIdentity: 'control-plane-gone', leaseDurationSeconds: 600, renewTime });
    assert.notEqual(await race(), 'control-plane-gone');
  });

  for (const [what, spec] of [
    ['nobody', {}],
    [
      'somebody since tomorrow',
      {
        holderIdentity: 'control-plane-gone',
        renewTime: new Date(Date.now() + 86_400_000).toISOString().replace('Z', '000Z'),
      },
    ],
    ['somebody since an unknown time', { holderIdentity: 'control-plane-gone' }],
    ['nobody since now', { renewTime: new Date().toISOString().replace('Z', '000Z') }],
  ] as const) {
    it(`a lease that is held by ${what} keeps nobody out`, async () => {
      await takeTurn(api, 'control-plane-gone', signal);
      await change(spec);
      await race();
    });
  }

  it('an API server that does not answer gives no turn', async () => {
    await takeTurn(api, 'control-plane-gone', signal);
    await assert.rejects(takeTurn(api, 'control-plane-1', AbortSignal.abort()), UnreachableError);
    assert.equal(await holder(), 'control-plane-gone');
  });
});
