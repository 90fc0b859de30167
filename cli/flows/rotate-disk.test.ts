// Over real aTLS and gRPC on loopback, at a real API server; nodes and evidence are made up.
import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { AsterismError, PolicyError } from '@asterism/errors/errors';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/disk_pb';
import { StatusError } from '@asterism/rpc/status';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { type Kube, startKube } from '@asterism/testkit/kube';
import { type DiskBindings, diskBindings } from './disk-bindings.ts';
import { type DiskPlan, moveDisks, refreshDisks, rotateDisks } from './rotate-disk.ts';
import type { DiskNode } from './sync-disk.ts';

const CONFIG_MAPS = '/api/v1/namespaces/kube-system/configmaps';
const UNKNOWN = '00000000-0000-4000-8000-ffffffffffff';
const never = new AbortController().signal;
let disks = 0;

describe('changing the keys of disks', { timeout: 240_000 }, () => {
  let kube: Kube;
  let bindings: DiskBindings;

  before(async () => {
    kube = await startKube();
    bindings = diskBindings({ call: kube.admin.call, text: () => assert.fail('no text is read here') });
  });
  after(() => kube[Symbol.asyncDispose]());

  type Data = Record<string, string>;
  const dataOf = async (uuid: string) =>
    (await kube.admin.call<{ data: Data }>('GET', `${CONFIG_MAPS}/disk-${uuid}`)).data;
  const setData = async (uuid: string, change: (data: Data) => Data) => {
    const map = await kube.admin.call<{ data: Data }>('GET', `${CONFIG_MAPS}/disk-${uuid}`);
    await kube.admin.call('PUT', `${CONFIG_MAPS}/disk-${uuid}`, { ...map, data: change(map.data) });
  };
  const bind = async (instanceName: string, more: Data = {}) => {
    const uuid = `00000000-0000-4000-8000-${String(++disks).padStart(12, '0')}`;
    const data = { instanceName, attestationKeyId: 'aa', ...more };
    await kube.admin.call('POST', CONFIG_MAPS, { metadata: { name: `disk-${uuid}` }, data });
    return uuid;
  };

  /** A node that does what node and JoinService do together; `fate` comes in front of each call. */
  async function node(t: TestContext, name: string, more: Data = {}, instanceName = name) {
    const uuid = await bind(instanceName, more);
    const made = { uuid, calls: 0, fate: async (_call: number) => {} };
    const server = new AtlsGrpcServer({ issuer: fakeIssuer() });
    server.addService(API, {
      async syncDisk() {
        await made.fate(++made.calls);
        const { nextKey, key = '1.0' } = await dataOf(made.uuid);
        if (nextKey === undefined) return { diskUuid: made.uuid, keyName: key, changed: false };
        await setData(made.uuid, ({ nextKey: key, ...data }) => ({ ...data, key: key! }));
        return { diskUuid: made.uuid, keyName: nextKey, changed: true };
      },
    });
    const { port } = await server.listen(0, '127.0.0.1');
    t.after(() => server.stop(0));
    const target: DiskNode = { name, host: '127.0.0.1', port };
    return Object.assign(made, { target });
  }
  const plan = (nodes: readonly { target: DiskNode }[], more: Partial<DiskPlan> = {}): DiskPlan => ({
    nodes: nodes.map(({ target }) => target),
    bindings,
    verifier: fakeVerifier(),
    signal: never,
    patienceMs: 300,
    pauseMs: 20,
    onStep: () => {},
    ...more,
  });

  it('gives each disk the key after its present one', async (t) => {
    const [first, second] = [await node(t, 'worker-0'), await node(t, 'cp-1', { key: '3.7' }, 'CP_1')];
    const steps: string[] = [];
    const outcomes = await rotateDisks(plan([first, second], { onStep: (text) => steps.push(text) }));
    assert.deepEqual(outcomes, [
      { node: 'worker-0', outcome: 'changed', diskUuid: first.uuid, from: '1.0', to: '1.1', exitCode: 0 },
      { node: 'cp-1', outcome: 'changed', diskUuid: second.uuid, from: '3.7', to: '3.8', exitCode: 0 },
    ]);
    assert.deepEqual(await dataOf(first.uuid), {
      instanceName: 'worker-0',
      attestationKeyId: 'aa',
      key: '1.1',
    });
    assert.deepEqual(steps, [
      'worker-0: which key its disk has',
      'worker-0: from key 1.0 to 1.1',
      'cp-1: which key its disk has',
      'cp-1: from key 3.7 to 3.8',
    ]);
  });

  it('completes what was begun before, and does no more', async (t) => {
    const begun = await node(t, 'worker-0', { key: '1.4', nextKey: '1.5' });
    const [outcome] = await rotateDisks(plan([begun]));
    assert.deepEqual([outcome?.outcome, outcome?.from, outcome?.to], ['resumed', '1.4', '1.5']);
    assert.equal((await dataOf(begun.uuid)).key, '1.5');
    // A call that was cut off right after it had wished for a key.
    const cut = await node(t, 'worker-1');
    cut.fate = async (call) => {
      if (call === 2) throw new StatusError('INTERNAL', 'ERR_X', 'the node was killed');
    };
    assert.equal((await rotateDisks(plan([cut])))[0]?.outcome, 'failed');
    assert.deepEqual((await dataOf(cut.uuid)).nextKey, '1.1');
    assert.equal((await rotateDisks(plan([cut])))[0]?.outcome, 'resumed');
    assert.equal((await rotateDisks(plan([cut])))[0]?.to, '1.2');
  });

  it('one node that fails keeps no other; the exit code says how', async (t) => {
    const [good, refusing] = [await node(t, 'worker-0'), await node(t, 'worker-1')];
    refusing.fate = async () => {
      throw new PolicyError('ERR_DISK_OWNER', 'not yours');
    };
    const gone = { target: { name: 'gone', host: '127.0.0.1', port: 1 } };
    const stolen = await node(t, 'worker-2', {}, 'another');
    const unknown = await node(t, 'worker-3');
    unknown.uuid = UNKNOWN;
    unknown.fate = async () => {
      throw new AsterismError('ERR_X', 'x');
    };
    const outcomes = await rotateDisks(plan([refusing, gone, stolen, unknown, good]));
    assert.deepEqual(
      outcomes.map(({ node, outcome, exitCode }) => [node, outcome, exitCode]),
      [
        ['worker-1', 'failed', 1],
        ['gone', 'failed', 4],
        ['worker-2', 'failed', 3],
        ['worker-3', 'failed', 1],
        ['worker-0', 'changed', 0],
      ],
    );
    assert.match(outcomes[1]!.error!, /^gone could not look after its disk: .*Does the node run/);
    assert.equal((await dataOf(stolen.uuid)).nextKey, undefined);
  });

  it('sends nothing to what is no member of the cluster', async (t) => {
    const target = await node(t, 'worker-0');
    const verifier = fakeVerifier({ fail: new PolicyError('ERR_PCR', 'PCR 15 differs') });
    const [outcome] = await rotateDisks(plan([target], { verifier }));
    assert.deepEqual([outcome?.outcome, outcome?.exitCode, target.calls], ['failed', 3, 0]);
  });

  it('waits while the node is busy', async (t) => {
    const busy = await node(t, 'worker-0');
    busy.fate = async (call) => {
      if (call < 4) throw new StatusError('RESOURCE_EXHAUSTED', 'ERR_BUSY', 'later');
    };
    assert.equal((await rotateDisks(plan([busy], { patienceMs: 10_000 })))[0]?.outcome, 'changed');
  });

  it('believes neither the node alone nor the record alone', async (t) => {
    const lying = await node(t, 'worker-0');
    lying.fate = async (call) => {
      // The record says that the change is made; the node never says so.
      if (call === 2) await setData(lying.uuid, ({ nextKey: _, ...data }) => ({ ...data, key: '1.0' }));
    };
    const [outcome] = await rotateDisks(plan([lying]));
    assert.match(outcome!.error!, /should have the key 1\.1; the node says 1\.0, the cluster 1\.0/);
    const odd = await node(t, 'worker-1');
    odd.uuid = '../secrets/x';
    odd.fate = async () => {};
    assert.equal((await rotateDisks(plan([odd])))[0]?.outcome, 'failed');
  });

  it('of two administrators at once one wishes, and the other goes along', async (t) => {
    const shared = await node(t, 'worker-0');
    const wishes = await Promise.all([1, 2].map(() => bindings.wish(shared.uuid, '1.0', '1.1', never)));
    assert.deepEqual(wishes, ['1.1', '1.1']);
    assert.equal(await bindings.wish(shared.uuid, '1.0', '2.0', never), '1.1');
    await setData(shared.uuid, ({ nextKey: _, ...data }) => ({ ...data, key: '1.1' }));
    await assert.rejects(bindings.wish(shared.uuid, '1.0', '1.1', never), { code: 'ERR_DISK_STATE' });
    await assert.rejects(bindings.get(UNKNOWN, never), { code: 'ERR_DISK_UNKNOWN' });
    await assert.rejects(bindings.get('../x', never), { code: 'ERR_DISK_UUID' });
  });

  it('lists disks in pages, and nothing else', async () => {
    const listed = (await bindings.list(never)).length;
    await Promise.all(Array.from({ length: 120 }, (_, i) => bind(`many-${i}`)));
    await kube.create(CONFIG_MAPS, { metadata: { name: 'disk-of-another-kind' }, data: { key: '1.0' } });
    assert.equal((await bindings.list(never)).length, listed + 120);
  });

  it('moves disks to a later generation, and names those that no node has', async (t) => {
    const [old, begun, moved] = [
      await node(t, 'worker-0', { key: '1.6' }),
      await node(t, 'worker-1', { key: '1.0', nextKey: '1.1' }),
      await node(t, 'worker-2', { key: '9.2' }),
    ];
    const lost = await bind('worker-9', { key: '8.0' });
    const { disks, left } = await moveDisks(plan([old, begun, moved]), 9);
    assert.deepEqual(
      disks.map(({ outcome, from, to }) => [outcome, from, to]),
      [
        ['changed', '1.6', '9.0'],
        ['changed', '1.1', '9.0'],
        ['unchanged', undefined, '9.2'],
      ],
    );
    assert.ok(left.some(({ diskUuid, instanceName }) => diskUuid === lost && instanceName === 'worker-9'));
    assert.ok(!left.some(({ diskUuid }) => [old, begun, moved].some(({ uuid }) => uuid === diskUuid)));
    const again = await moveDisks(plan([old, begun, moved]), 9);
    assert.ok(again.disks.every(({ outcome }) => outcome === 'unchanged'));
    const [refreshed] = await refreshDisks(plan([old]));
    assert.deepEqual([refreshed?.outcome, refreshed?.to], ['unchanged', '9.0']);
  });
});
