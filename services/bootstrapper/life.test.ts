import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { InstanceMetadata } from '@asterism/metadata/types';
import { markEnded } from './delivery.ts';
import { instance, makeTestMachine, type TestMachine, testMetadata } from './fake-machine.ts';
import type { NodePhase } from './health.ts';
import type { InitEnd } from './init-server.ts';
import { Journal } from './journal.ts';
import { type LifeParts, live } from './life.ts';
import { NodeLock } from './node-lock.ts';

const first = instance('cp-0', '10.77.1.2', 'ControlPlane');
const second = instance('cp-1', '10.77.1.3', 'ControlPlane');
const ID = new Uint8Array(32).fill(7);

/** Until the signal, as what serves or asks does that nothing comes to. */
function waits<T>(signal: AbortSignal, then: T): Promise<T> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(then);
    else signal.addEventListener('abort', () => resolve(then), { once: true });
  });
}

describe('the life of a bootstrapper', () => {
  let machine: TestMachine;
  let phases: NodePhase[];
  let lock: NodeLock;
  let stop: AbortController;
  beforeEach(async () => {
    machine = await makeTestMachine();
    phases = [];
    lock = new NodeLock();
    stop = new AbortController();
  });
  afterEach(() => machine.remove());

  interface Scene {
    readonly self?: InstanceMetadata;
    readonly others?: readonly InstanceMetadata[];
    readonly join?: LifeParts['joining']['run'];
    readonly resume?: LifeParts['joining']['resume'];
    readonly serveInit?: LifeParts['serveInit'];
  }
  function parts(scene: Scene): LifeParts {
    return {
      tpm: machine.tpm,
      layout: machine.machine.layout,
      node: machine.node,
      metadata: testMetadata(scene.self ?? first, scene.others ?? [second]),
      joining: {
        run: scene.join ?? ((signal) => waits(signal, 'given-up')),
        resume: scene.resume ?? (() => Promise.reject(new Error('nothing to resume'))),
      },
      lock,
      log: { info() {} },
      onPhase: (phase) => phases.push(phase),
      onStart: async () => {},
      serveInit: scene.serveInit ?? (() => Promise.reject(new Error('init was served'))),
    };
  }
  const servesUntil =
    (onServing: () => void): LifeParts['serveInit'] =>
    (_, until) => {
      onServing();
      return waits<InitEnd>(until, 'stopped');
    };
  const stopped = /SIGTERM/;
  const sigterm = () => stop.abort(new Error('SIGTERM'));

  it('stopped while it waits for an init, it is no member', async () => {
    await assert.rejects(live(parts({ serveInit: servesUntil(sigterm) }), stop.signal), stopped);
    assert.deepEqual(phases, ['waiting']);
  });

  it('stopped while an init or a join is under way, it is no member', async () => {
    const initialising: LifeParts['serveInit'] = (_, until) => {
      lock.tryTake('init');
      sigterm();
      return waits<InitEnd>(until, 'stopped');
    };
    await assert.rejects(live(parts({ serveInit: initialising }), stop.signal), stopped);
    assert.ok(!phases.includes('member'));
    lock = new NodeLock();
    stop = new AbortController();
    const joining: LifeParts['joining']['run'] = async (signal) => {
      lock.tryTake('join');
      sigterm();
      throw signal.reason;
    };
    await assert.rejects(
      live(parts({ join: joining, serveInit: servesUntil(() => {}) }), stop.signal),
      stopped,
    );
    assert.ok(!phases.includes('member'));
  });

  it('stopped before anybody has confirmed the answer of an init, it is no member for good', async () => {
    const ended: LifeParts['serveInit'] = ({ onEnded }, until) => {
      onEnded();
      sigterm();
      return waits<InitEnd>(until, 'stopped');
    };
    await assert.rejects(live(parts({ serveInit: ended }), stop.signal), stopped);
    assert.deepEqual(phases, ['waiting', 'delivering']);
  });

  for (const end of ['confirmed', 'expired'] as const) {
    it(`is a member when the answer of its init is ${end}, and asks for no ticket any more`, async () => {
      let gaveUp = false;
      const join: LifeParts['joining']['run'] = async (signal) => {
        await waits(signal, undefined);
        gaveUp = true;
        return 'given-up';
      };
      await live(parts({ join, serveInit: async () => end }), stop.signal);
      assert.equal(phases.at(-1), 'member');
      assert.ok(gaveUp);
    });
  }

  it('serves no init where another control plane comes first, and joins', async () => {
    const join: LifeParts['joining']['run'] = async () => {
      lock.tryTake('join');
      return 'joined';
    };
    await live(parts({ self: second, others: [first], join }), stop.signal);
    assert.deepEqual(phases, ['waiting', 'joining', 'member']);
  });

  it('serves an init when its role becomes known, not before', async () => {
    let role: InstanceMetadata['role'] = 'Unknown';
    const self = {
      ...first,
      get role() {
        return role;
      },
    };
    let asked = 0;
    const scene = parts({
      serveInit: async () => {
        assert.equal(role, 'ControlPlane');
        return 'confirmed';
      },
    });
    await live(
      {
        ...scene,
        metadata: {
          self: async () => {
            if (++asked === 2) role = 'ControlPlane';
            return self;
          },
          list: async () => [self, second],
        },
      },
      stop.signal,
    );
    assert.equal(phases.at(-1), 'member');
  });

  it('goes on to join where another machine turns out to take the init', async () => {
    const order: string[] = [];
    const join: LifeParts['joining']['run'] = async () => {
      await new Promise((go) => setTimeout(go, 20));
      order.push('joined');
      return 'joined';
    };
    const serveInit: LifeParts['serveInit'] = async () => {
      order.push('elsewhere');
      return 'elsewhere';
    };
    await live(parts({ join, serveInit }), stop.signal);
    assert.deepEqual(order, ['elsewhere', 'joined']);
    assert.equal(phases.at(-1), 'member');
  });

  it('stops serving init when it joins', async () => {
    let served: InitEnd | undefined;
    const serving = Promise.withResolvers<void>();
    const join: LifeParts['joining']['run'] = async () => {
      await serving.promise;
      lock.tryTake('join');
      return 'joined';
    };
    const serveInit: LifeParts['serveInit'] = async (_, until) => {
      serving.resolve();
      served = await waits<InitEnd>(until, 'stopped');
      return served;
    };
    await live(parts({ join, serveInit }), stop.signal);
    assert.equal(served, 'stopped');
    assert.equal(phases.at(-1), 'member');
  });

  it('with an unconfirmed init it runs as a member and serves the answer for what is left of its time', async () => {
    const journal = await Journal.begin(machine.machine.layout.initJournal, 'init', '07'.repeat(32), 'order');
    await machine.tpm.extendClusterId(ID);
    await markEnded(journal);
    let leftMs: number | undefined;
    const serveInit: LifeParts['serveInit'] = async (options) => {
      assert.deepEqual(machine.node.steps, ['containerd', 'kubelet']);
      leftMs = options.leftMs;
      return 'confirmed';
    };
    await live(parts({ self: second, others: [first], serveInit }), stop.signal);
    assert.ok(leftMs !== undefined && leftMs > 0);
    assert.deepEqual(phases, ['delivering', 'member']);
  });
});
