import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { InstanceMetadata, Role } from '@asterism/metadata/types';
import { instance } from './fake-machine.ts';
import { initPlace, settleInitPlace } from './init-place.ts';

const machine = (name: string, role: Role = 'ControlPlane'): InstanceMetadata =>
  instance(name, '10.77.1.2', role);

describe('the machine that takes the init of a cluster', () => {
  it('is one of all machines, whatever the order of the list, and whoever looks', () => {
    const all = ['cp-2', 'cp-10', 'cp-0', 'CP-1']
      .map((name) => machine(name))
      .concat(machine('a-worker', 'Worker'));
    for (const list of [all, all.toReversed()]) {
      const here = list.filter((self) => initPlace(self, list).place === 'here');
      assert.deepEqual(
        here.map(({ name }) => name),
        ['CP-1'],
      );
      assert.equal(list.filter((self) => initPlace(self, list).place === 'elsewhere').length, 4);
    }
  });

  it('is not known while an earlier machine has no role, whoever comes later', () => {
    const self = machine('cp-1');
    assert.equal(initPlace(self, [self, machine('cp-0', 'Unknown')]).place, 'unknown');
    assert.equal(initPlace(self, [self, machine('cp-2', 'Unknown')]).place, 'here');
    assert.equal(initPlace(self, [self, machine('cp-0'), machine('b', 'Unknown')]).place, 'elsewhere');
  });

  it('is not this one while the provider contradicts itself about it', () => {
    const self = machine('cp-0');
    for (const list of [
      [],
      [machine('cp-1')],
      [self, self],
      [machine('cp-0', 'Worker')],
      [machine('cp-0', 'Unknown')],
    ]) {
      assert.equal(initPlace(self, list).place, 'unknown', JSON.stringify(list));
    }
    assert.equal(initPlace(machine('cp-0', 'Unknown'), [self]).place, 'unknown');
  });

  it('is asked for again until the provider knows, whatever it answers before', async () => {
    const unknown = machine('cp-0', 'Unknown');
    const self = machine('cp-0');
    const answers: (() => [InstanceMetadata, InstanceMetadata[]])[] = [
      () => {
        throw new Error('no answer');
      },
      () => [unknown, [unknown]],
      () => [self, []],
      () => [self, [self]],
    ];
    let list: InstanceMetadata[] = [];
    const metadata = {
      self: async () => {
        const [one, all] = answers.shift()!();
        list = all;
        return one;
      },
      list: async () => list,
    };
    const said: object[] = [];
    const log = { info: (fields: object) => said.push(fields) };
    const signal = new AbortController().signal;
    assert.deepEqual(await settleInitPlace({ metadata, log, signal, firstWaitMs: 1 }), { place: 'here' });
    assert.equal(answers.length, 0);
    assert.equal(said.length, 3);
  });

  it('is not waited for longer than the caller wants', async () => {
    const stop = new AbortController();
    const unknown = machine('cp-0', 'Unknown');
    const waiting = settleInitPlace({
      metadata: { self: async () => unknown, list: async () => [unknown] },
      log: { info: () => stop.abort(new Error('enough')) },
      signal: stop.signal,
    });
    await assert.rejects(waiting, /enough|aborted/);
  });
});
