import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { KUBECONFIG_FILE } from '@asterism/config/workspace';
import { PolicyError, UnreachableError, VerificationError } from '@asterism/errors/errors';
import { command } from '../command.fixture.ts';
import type { ClusterStatus } from '../flows/cluster-status.ts';
import { miniUp } from '../flows/mini.ts';
import { AS_FOUND, world } from '../world.fixture.ts';

async function scene(t: TestContext) {
  const here = await world(t);
  await miniUp(here.context(), here.parts, AS_FOUND);
  const { folder, parts } = here;
  const status = async () => {
    const { stdout, exitCode } = await command(parts, ['--workspace', folder, 'status']);
    const json = await command(parts, ['--workspace', folder, 'status', '-o', 'json']);
    return { text: stdout, exitCode, json: JSON.parse(json.stdout) as ClusterStatus };
  };
  return { ...here, workspace: here.context().workspace, status };
}

test('of a cluster that fares well everything is known', async (t) => {
  const { status } = await scene(t);
  const { text, exitCode, json } = await status();
  assert.equal(exitCode, 0);
  assert.match(text, /node-0 .*running +Ready +v1\.37\.2 +attestation passed/);
  assert.deepEqual(
    json.nodes.map(({ running, ready, attestation }) => [running, ready, attestation]),
    [
      [true, true, 'passed'],
      [true, true, 'passed'],
    ],
  );
});

for (const [what, error, code] of [
  ['false', new VerificationError('ERR_QUOTE', 'the quote is false'), 2],
  ['not what the configuration allows', new PolicyError('ERR_PCR', 'the quote is false'), 3],
] as const) {
  test(`evidence that is ${what} is told with its reason and exits with ${code}`, async (t) => {
    const { status, fate } = await scene(t);
    fate.evidence = error;
    const { text, exitCode, json } = await status();
    assert.equal(exitCode, code);
    assert.match(text, /attestation failed/);
    assert.match(text, /node-0 FAILED attestation: the quote is false/);
    assert.equal(json.nodes[0]?.attestationError, 'the quote is false');
  });
}

test('a node that does not answer is told, and no failure', async (t) => {
  const { status, fate } = await scene(t);
  fate.evidence = new UnreachableError('nobody there');
  const { text, exitCode } = await status();
  assert.equal(exitCode, 0);
  assert.match(text, /attestation unreachable/);
});

test('where Kubernetes cannot be asked, whether nodes are Ready is unknown', async (t) => {
  const { status, workspace } = await scene(t);
  await workspace.remove(KUBECONFIG_FILE);
  const { text, json } = await status();
  assert.match(text, /API server: asterism-admin\.conf is missing/);
  assert.match(text, /node-0 .*running +unknown /);
  assert.doesNotMatch(text, /not Ready/);
  assert.equal(json.nodes[0]?.ready, null);
});

test('before the init nothing is said of Kubernetes or evidence', async (t) => {
  const { status, workspace } = await scene(t);
  const { clusterId: _, ...state } = await workspace.requireState();
  await workspace.writeState({ ...state, phase: 'created' });
  const { text, exitCode, json } = await status();
  assert.equal(exitCode, 0);
  assert.match(text, /node-0 .*running +unknown .*attestation not asked/);
  assert.equal(json.trust, null);
});

test('where the record of the machines is gone it says so and names terminate', async (t) => {
  const { status, clusters } = await scene(t);
  clusters.length = 0;
  const { text, json } = await status();
  assert.match(text, /Nothing is known of its machines here.*asterism terminate/);
  assert.match(text, /node-0 .*unknown +Ready/);
  assert.equal(json.machines, 'gone');
  assert.equal(json.nodes[0]?.running, null);
});
