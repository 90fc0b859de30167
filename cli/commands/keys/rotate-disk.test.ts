import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Context } from '../../context.ts';
import type { AdminApi } from '../../flows/admin-api.ts';
import type { Parts } from '../../parts.ts';
import { describeDisk, diskPlan } from './rotate.ts';

const nodes = [
  { name: 'control-plane-0', role: 'ControlPlane', address: '10.77.1.11' },
  { name: 'worker-0', role: 'Worker', address: '10.77.1.12' },
];
const identities: (Uint8Array | undefined)[] = [];
const parts = {
  verifier: (_config: object, identity: Uint8Array | undefined) => void identities.push(identity),
} as unknown as Parts;

const api = {} as AdminApi;

function workspace(clusterId: string | undefined): Context {
  const files = {
    requireState: async () => ({ clusterId, nodes }),
    config: async () => ({}),
  };
  return { workspace: files, signal: new AbortController().signal } as unknown as Context;
}

test('the nodes that are named, or all, each at its own port, as members of this cluster', async () => {
  const context = workspace('aa'.repeat(32));
  const all = await diskPlan(context, parts, api, undefined);
  assert.deepEqual(all.nodes, [
    { name: 'control-plane-0', host: '10.77.1.11', port: 9998 },
    { name: 'worker-0', host: '10.77.1.12', port: 9998 },
  ]);
  const { nodes } = await diskPlan(context, parts, api, ['worker-0']);
  assert.deepEqual(
    nodes.map(({ name }) => name),
    ['worker-0'],
  );
  assert.ok(
    identities.every((pcr) => pcr?.length === 32),
    'PCR 15 is judged',
  );
});

test('without nodes, with unknown ones, and before init it says what is missing', async () => {
  const context = workspace('aa'.repeat(32));
  await assert.rejects(diskPlan(context, parts, api, []), { code: 'ERR_NO_NODES' });
  await assert.rejects(diskPlan(context, parts, api, ['worker-0', 'worker-9']), {
    code: 'ERR_UNKNOWN_NODE',
    message: /no node worker-9; there are control-plane-0, worker-0/,
  });
  await assert.rejects(diskPlan(workspace(undefined), parts, api, undefined), {
    code: 'ERR_NOT_INITIALIZED',
  });
});

test('each outcome is a line', () => {
  const disk = { node: 'worker-0', diskUuid: 'U', from: '1.0', to: '1.1', exitCode: 0 } as const;
  const { from: _, ...moved } = disk;
  assert.deepEqual(
    [
      describeDisk({ ...disk, outcome: 'changed' }),
      describeDisk({ ...moved, outcome: 'changed' }),
      describeDisk({ ...disk, outcome: 'resumed' }),
      describeDisk({ ...disk, outcome: 'unchanged' }),
      describeDisk({ node: 'worker-0', outcome: 'failed', error: 'why', exitCode: 4 }),
    ],
    [
      'worker-0: disk U has key 1.1 now, instead of 1.0',
      'worker-0: disk U has key 1.1 now',
      'worker-0: an earlier change of disk U is complete: it has key 1.1 now',
      'worker-0: disk U keeps key 1.1',
      'worker-0: FAILED: why',
    ],
  );
});
