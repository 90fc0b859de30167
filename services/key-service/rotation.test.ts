import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { toBase64, toUtf8 } from '@asterism/bytes/encoding';
import {
  KEY_CONFIGURATION,
  type KeyConfiguration,
  renderKeyConfiguration,
} from '@asterism/kms/key-configuration';
import { MemoryKek } from '@asterism/kms/memory.fixture';
import { type RewrapResult, rewrapAll } from '@asterism/kms/rewrap';
import {
  parseRotationStatus,
  ROTATION_STATUS,
  type RotationStatus,
  renderRotationStatus,
} from '@asterism/kms/rotation-status';
import { storedKeys } from '@asterism/kms/stored-keys';
import { kubernetesStore } from '@asterism/kms/stores/kubernetes/store';
import type { KubernetesApi } from '@asterism/kubernetes/api';
import { type Kube, startKube } from '@asterism/testkit/kube';
import { followKeyConfiguration } from './configuration.ts';
import { followRotation, type RotationOptions } from './rotation.ts';

const MAPS = '/api/v1/namespaces/kube-system/configmaps';
const SECRETS = '/api/v1/namespaces/kube-system/secrets';
const clusterId = 'cd'.repeat(32);
const quiet = { info() {}, error() {} };

describe('what replicas of the KeyService follow, on a real API server', { timeout: 240_000 }, () => {
  let kube: Kube;
  let api: KubernetesApi;
  let running: { stop: AbortController; done: Promise<unknown> }[] = [];

  before(async () => {
    kube = await startKube();
    const deploy = join(import.meta.dirname, '../../deploy/key-service/key-service.yaml');
    await kube.apply(await readFile(deploy, 'utf8'));
    api = await kube.as('key-service');
  });
  after(() => kube?.[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const { stop, done } of running) {
      stop.abort();
      await done;
    }
    running = [];
  });

  const start = (work: (signal: AbortSignal) => Promise<void>) => {
    const stop = new AbortController();
    const one = { stop, done: work(stop.signal) };
    running.push(one);
    return one;
  };

  it('a configuration is in force within seconds; a broken one changes nothing', async () => {
    const applied: KeyConfiguration[] = [];
    const errors: object[] = [];
    const write = async (text: string, method: 'POST' | 'PUT') => {
      const path = method === 'POST' ? SECRETS : `${SECRETS}/${KEY_CONFIGURATION.name}`;
      const data = { [KEY_CONFIGURATION.entry]: toBase64(toUtf8(text)) };
      await kube.admin.call(method, path, { metadata: { name: KEY_CONFIGURATION.name }, data });
    };
    start((signal) =>
      followKeyConfiguration({
        api,
        apply: async (configuration) => void applied.push(configuration),
        log: { info() {}, error: (fields) => errors.push(fields) },
        signal,
        intervalMs: 50,
      }),
    );
    const until = async (what: () => boolean) => {
      for (let i = 0; i < 200 && !what(); i++) await sleep(50);
      assert.ok(what());
    };
    const home = { kmsUri: 'kms://cluster-kms?key=hunter22', storageUri: 'storage://no-store' };
    await until(() => errors.length === 1);
    await write(renderKeyConfiguration({ homes: [home] }), 'POST');
    await until(() => applied.length === 1);
    await write('{"version":1,"homes":[{"kmsUri":"hunter22"}]}', 'PUT');
    await until(() => errors.length === 2);
    await sleep(300);
    // The same trouble is said once, and without what was read.
    assert.equal(errors.length, 2);
    assert.doesNotMatch(inspect(errors, { depth: 10 }), /hunter22/);
    assert.equal(applied.length, 1);
    await write(renderKeyConfiguration({ homes: [home, home] }), 'PUT');
    await until(() => applied.length === 2);
    assert.equal(applied[1]!.homes.length, 2);
  });

  const order = async (name: string): Promise<void> => {
    const data = renderRotationStatus(parseRotationStatus({ order: name, generation: 2, state: 'ordered' }));
    const object = { metadata: { name: ROTATION_STATUS, namespace: 'kube-system' }, data };
    await kube.admin.call('DELETE', `${MAPS}/${ROTATION_STATUS}`).catch(() => {});
    await kube.create(MAPS, object);
  };
  const status = async (): Promise<RotationStatus> =>
    parseRotationStatus((await kube.admin.call('GET', `${MAPS}/${ROTATION_STATUS}`)).data);
  const ended = async (): Promise<RotationStatus> => {
    for (let i = 0; i < 400; i++) {
      const found = await status();
      if (found.state === 'done' || found.state === 'failed') return found;
      await sleep(50);
    }
    throw new Error('it did not end');
  };

  const one = new MemoryKek('kek-1');
  const two = new MemoryKek('kek-2');
  const rewrap: RotationOptions['rewrap'] = (generation) =>
    generation !== 2
      ? undefined
      : (onProgress, signal) =>
          rewrapAll({
            from: { kek: one, generation: 1 },
            to: { kek: two, generation: 2 },
            store: kubernetesStore(api),
            clusterId,
            concurrency: 4,
            onProgress,
            signal,
          });
  const audited: object[] = [];
  const audit = { append: async (event: object) => void audited.push(event) };
  const replica = (name: string, more: Partial<RotationOptions> = {}) =>
    start((signal) =>
      followRotation({ api, rewrap, audit, log: quiet, name, intervalMs: 50, signal, ...more }),
    );

  it('three replicas carry out one order, and every key keeps its value', async () => {
    const before = storedKeys({ kek: one, store: kubernetesStore(api), clusterId, generation: 1 });
    const ids = Array.from({ length: 30 }, (_, i) => `key-volume-${i}`);
    const keys = await Promise.all(ids.map((id) => before.getDek(id, 32)));
    await order('first');
    for (const name of ['a', 'b', 'c']) replica(name);
    const done = await ended();
    assert.deepEqual([done.state, done.total, done.rewrapped, done.failed], ['done', 30, 30, 0], done.error);
    const after = storedKeys({ kek: two, store: kubernetesStore(api), clusterId, generation: 2 });
    assert.deepEqual(await Promise.all(ids.map((id) => after.getDek(id, 32))), keys);
    assert.deepEqual(audited, [
      {
        event: 'rewrap-keys',
        outcome: 'granted',
        order: 'first',
        generation: 2,
        total: 30,
        rewrapped: 30,
        failed: 0,
      },
    ]);
    // Another order proves what is done.
    await order('second');
    const again = await ended();
    assert.deepEqual([again.state, again.rewrapped, again.alreadyDone], ['done', 0, 30]);
  });

  for (const [what, silentMs] of [
    ['dies in the middle', 60_000],
    ['has died with a clock that is an hour ahead', -3_600_000],
  ] as const)
    it(`a replica that ${what} is succeeded`, async () => await succeeded(silentMs));

  async function succeeded(silentMs: number): Promise<void> {
    const fresh = storedKeys({ kek: one, store: kubernetesStore(api), clusterId, generation: 1 });
    for (let i = 0; i < 10; i++) await fresh.getDek(`key-late${silentMs}-${i}`, 32);
    await order('third');
    let reached = () => {};
    const stuck = new Promise<void>((resolve) => {
      reached = resolve;
    });
    const dying = replica('dying', {
      rewrap: () => (onProgress, signal) => {
        const result: RewrapResult = {
          total: 1,
          rewrapped: 1,
          alreadyDone: 0,
          failedCount: 0,
          failed: [],
          foreign: 0,
        };
        onProgress(result);
        reached();
        return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
      },
    });
    await stuck;
    while ((await status()).holder !== 'dying') await sleep(20);
    dying.stop.abort();
    await dying.done;
    // As if it had been silent for longer than the lease.
    const object = await kube.admin.call('GET', `${MAPS}/${ROTATION_STATUS}`);
    const data = { ...(object.data as object), renewed: new Date(Date.now() - silentMs).toISOString() };
    await kube.admin.call('PUT', `${MAPS}/${ROTATION_STATUS}`, { ...object, data });
    replica('heir');
    const done = await ended();
    assert.deepEqual([done.state, done.holder, done.rewrapped], ['done', 'heir', 10]);
  }

  it('a key that cannot be unwrapped is named, and the order has failed', async () => {
    const stranger = storedKeys({
      kek: new MemoryKek('other'),
      store: kubernetesStore(api),
      clusterId,
      generation: 1,
    });
    await stranger.getDek('key-strange', 32);
    await order('fourth');
    replica('a');
    const done = await ended();
    assert.deepEqual([done.state, done.failed], ['failed', 1]);
    assert.match(done.error, /^key-strange: /);
  });

  it('an order for another generation than is configured waits', async () => {
    const data = { order: 'fifth', generation: '3', state: 'ordered' };
    await kube.admin.call('DELETE', `${MAPS}/${ROTATION_STATUS}`);
    await kube.create(MAPS, { metadata: { name: ROTATION_STATUS }, data });
    replica('a');
    await sleep(500);
    assert.equal((await status()).state, 'ordered');
  });
});
