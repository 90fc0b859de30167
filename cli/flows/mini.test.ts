import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseClusterConfig } from '@asterism/config/cluster-config';
import { generateMasterSecret, renderMasterSecret } from '@asterism/config/master-secret';
import { renderClusterConfig } from '@asterism/config/template';
import { AS_FOUND, measurements, TRUST, world } from '../world.fixture.ts';
import { type MiniOptions, miniUp } from './mini.ts';
import { miniDown } from './mini-down.ts';
import { fingerprint, MARKER_FILE, readMarker } from './mini-marker.ts';
import type { Needs } from './requirements.ts';
import { terminateCluster } from './terminate-cluster.ts';

test('from nothing to a verified cluster, with its times kept', async (t) => {
  const { folder, parts, context, done } = await world(t);
  const result = await miniUp(context(), parts, AS_FOUND);
  assert.equal(result.already, false);
  assert.deepEqual(done, ['components v1.37.2', 'image', 'create']);
  assert.deepEqual(
    result.verdicts.map((verdict) => verdict.outcome),
    ['passed', 'passed'],
  );
  assert.equal(result.trust, TRUST);
  const { phases } = JSON.parse(await readFile(join(folder, MARKER_FILE), 'utf8'));
  assert.deepEqual(
    phases.map((one: { phase: string }) => one.phase),
    ['components of v1.37.2', 'node image', 'machines', 'init kubeadm', 'init', 'nodes Ready', 'verify'],
  );
});

test('run again on a live cluster it makes nothing and says so', async (t) => {
  const { folder, parts, context, done, inits } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  const files = await Promise.all(
    (await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8')),
  );
  done.length = 0;
  const result = await miniUp(context(), parts, AS_FOUND);
  assert.equal(result.already, true);
  assert.deepEqual(done, []);
  assert.equal(inits(), 1);
  const after = await Promise.all(
    (await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8')),
  );
  assert.deepEqual(after, files);
});

test('an init that failed is gone on with, on the same machines', async (t) => {
  const { parts, context, done, inits } = await world(t, { failInits: 1 });
  await assert.rejects(miniUp(context(), parts, AS_FOUND), { code: 'ERR_PHASE' });
  done.length = 0;
  await miniUp(context(), parts, AS_FOUND);
  assert.deepEqual(done, []);
  assert.equal(inits(), 2);
});

test('machines that were never finished are removed and made anew', async (t) => {
  const { parts, context, done } = await world(t, { failInits: 1 });
  await assert.rejects(miniUp(context(), parts, AS_FOUND), { code: 'ERR_PHASE' });
  const { workspace } = context();
  await workspace.writeState({ ...(await workspace.requireState()), phase: 'creating' });
  done.length = 0;
  await miniUp(context(), parts, AS_FOUND);
  assert.deepEqual(done, ['destroy', 'components v1.37.2', 'image', 'create']);
});

test('the marker is there before machines, configuration and secret, and tells what is made', async (t) => {
  const { parts, context, clusters } = await world(t);
  const { workspace } = context();
  const seen: string[] = [];
  const { create } = parts.machines;
  parts.machines.create = async (spec, options) => {
    const marker = await readMarker(workspace);
    assert.equal(marker?.made.cluster, spec.uid);
    assert.equal(marker?.made.configuration, true);
    assert.equal(marker?.made.masterSecret, fingerprint((await workspace.masterSecret())!));
    seen.push('create');
    return create(spec, options);
  };
  parts.images.build = async () => {
    assert.deepEqual(await readdir(workspace.folder), []);
    throw new Error('stopped');
  };
  await assert.rejects(miniUp(context(), parts, AS_FOUND), /stopped/);
  assert.deepEqual(await readdir(workspace.folder), []);
  parts.images.build = async () => ({ reference: 'sha256:image', path: '/image', measurements });
  await miniUp(context(), parts, AS_FOUND);
  assert.deepEqual(seen, ['create']);
  assert.equal(clusters.length, 1);
});

test('the machine is looked at before anything is built, and not for a cluster that is there', async (t) => {
  const { parts, context, done } = await world(t);
  const asked: Needs[] = [];
  const small: MiniOptions = {
    ...AS_FOUND,
    workerNodes: 2,
    checkMachine: async (needs) => {
      asked.push(needs);
      throw new Error('too small');
    },
  };
  await assert.rejects(miniUp(context(), parts, small), /too small/);
  assert.deepEqual(done, []);
  assert.equal(asked[0]?.nodes, 3);
  // The fake components are there, the image is not.
  assert.deepEqual(
    asked[0]?.room.map(({ gib }) => gib),
    [7, 0.5],
  );
  await miniUp(context(), parts, AS_FOUND);
  await miniUp(context(), parts, { ...small, workerNodes: undefined });
  assert.equal(asked.length, 1);
});

test('with an external KMS there is no master secret, neither made nor asked for', async (t) => {
  const { parts, context } = await world(t);
  const { workspace } = context();
  const config = parseClusterConfig(`
version: v1
name: mini
kubernetesVersion: v1.37.2
image: sha256:image
provider: { local: { controlPlaneNodes: 1, workerNodes: 1, egress: true } }
attestation:
  qemuVtpm: { acceptUnauthenticatedTpm: true, measurements: { 4: { expected: "${'11'.repeat(32)}", warnOnly: false } } }
kms: { type: vault, address: "https://bao.internal:8200", keyName: asterism, credentials: { token: { file: token } } }
`);
  await workspace.create('asterism-conf.yaml', renderClusterConfig(config));
  await workspace.create('token', 'hunter22');
  const { state } = await miniUp(context(), parts, AS_FOUND);
  assert.match(state.keyHome?.kmsUri ?? '', /^kms:\/\/vault\?/);
  assert.equal((await readMarker(workspace))?.made.masterSecret, undefined);
  assert.equal(await workspace.masterSecret(), undefined);
  assert.equal((await miniUp(context(), parts, AS_FOUND)).already, true);
  await miniDown(context(), parts.machines);
  assert.deepEqual((await readdir(workspace.folder)).sort(), ['asterism-conf.yaml', 'token']);
});

test('after a down that was interrupted, up makes a new cluster with the secret that it had made', async (t) => {
  const { parts, context, done, fate, clusters } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  const { workspace } = context();
  const secret = await workspace.masterSecret();
  fate.destroy = new Error('stopped');
  await assert.rejects(miniDown(context(), parts.machines), /stopped/);
  delete fate.destroy;
  done.length = 0;
  const { already, state } = await miniUp(context(), parts, AS_FOUND);
  assert.equal(already, false);
  assert.deepEqual(done, ['destroy', 'components v1.37.2', 'image', 'create']);
  assert.deepEqual(await workspace.masterSecret(), secret);
  assert.deepEqual(
    clusters.map(({ uid }) => uid),
    [state.uid],
  );
});

test('after terminate, up makes a new cluster with the secret that it had made', async (t) => {
  const { parts, context } = await world(t);
  const first = await miniUp(context(), parts, AS_FOUND);
  const { workspace } = context();
  const secret = await workspace.masterSecret();
  await terminateCluster(context(), parts.machines);
  const second = await miniUp(context(), parts, AS_FOUND);
  assert.notEqual(second.state.uid, first.state.uid);
  assert.notEqual(second.state.clusterId, first.state.clusterId);
  assert.deepEqual(await workspace.masterSecret(), secret);
  await miniDown(context(), parts.machines);
  await assert.rejects(readdir(workspace.folder), { code: 'ENOENT' });
});

test('after a down that stopped between two files, up makes the missing one anew', async (t) => {
  for (const gone of ['asterism-mastersecret.json', 'asterism-conf.yaml']) {
    const { parts, context } = await world(t);
    await miniUp(context(), parts, AS_FOUND);
    const { workspace } = context();
    await terminateCluster(context(), parts.machines);
    await workspace.remove(gone);
    await miniUp(context(), parts, AS_FOUND);
    await miniDown(context(), parts.machines);
    await assert.rejects(readdir(workspace.folder), { code: 'ENOENT' });
  }
});

for (const name of ['asterism-mastersecret.json', 'asterism-admin.conf']) {
  test(`a ${name} of something else is refused before anything is made, and stays`, async (t) => {
    const { parts, context, done } = await world(t);
    const { workspace } = context();
    await workspace.create(name, renderMasterSecret(generateMasterSecret()));
    const text = await workspace.read(name);
    await assert.rejects(miniUp(context(), parts, AS_FOUND), (error: Error & { code: string }) => {
      assert.ok(error.message.startsWith(workspace.path(name)));
      assert.match(error.message, /move it away.*--workspace/);
      return error.code === 'ERR_EXISTS';
    });
    assert.deepEqual(done, []);
    assert.deepEqual(await readdir(workspace.folder), [name]);
    assert.equal(await workspace.read(name), text);
  });
}

test('a secret that was put in the place of its own is refused', async (t) => {
  const { parts, context, done } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  const { workspace } = context();
  await terminateCluster(context(), parts.machines);
  await workspace.remove('asterism-mastersecret.json');
  await workspace.createMasterSecret(generateMasterSecret());
  done.length = 0;
  await assert.rejects(miniUp(context(), parts, AS_FOUND), { code: 'ERR_EXISTS' });
  assert.deepEqual(done, []);
});

test('a cluster that it did not make is left alone, half made too', async (t) => {
  for (const phase of ['initialized', 'created', 'creating'] as const) {
    const { parts, context, done } = await world(t);
    await miniUp(context(), parts, AS_FOUND);
    const { workspace } = context();
    await workspace.writeState({ ...(await workspace.requireState()), phase });
    await workspace.remove(MARKER_FILE);
    done.length = 0;
    await assert.rejects(miniUp(context(), parts, AS_FOUND), { code: 'ERR_NOT_MINI' });
    assert.deepEqual(done, []);
  }
});

test('a cluster whose machines are gone is told from one that is stopped', async (t) => {
  const { parts, context, clusters } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  clusters.length = 0;
  await assert.rejects(miniUp(context(), parts, AS_FOUND), /machines.*gone.*asterism mini down/);
});

test('a cluster whose nodes are stopped is left alone; the message says what to do', async (t) => {
  const { parts, context, done, running } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  running.delete('node-1');
  done.length = 0;
  await assert.rejects(miniUp(context(), parts, AS_FOUND), /node-1.*asterism local start/s);
  assert.deepEqual(done, []);
});

for (const [what, flags] of [
  ['1 control-plane nodes', { controlPlaneNodes: 3 }],
  ['1 worker nodes', { workerNodes: 5 }],
  ['v1.37.2 as Kubernetes version', { kubernetesVersion: '1.36' }],
] as const) {
  test(`flags that contradict a cluster with ${what} or its configuration are refused`, async (t) => {
    const { parts, context, done } = await world(t);
    await miniUp(context(), parts, AS_FOUND);
    done.length = 0;
    const given = { ...AS_FOUND, ...flags };
    await assert.rejects(miniUp(context(), parts, given), new RegExp(`is there already with ${what}`));
    await terminateCluster(context(), parts.machines);
    done.length = 0;
    await assert.rejects(miniUp(context(), parts, given), new RegExp(`asterism-conf.yaml says ${what}`));
    assert.deepEqual(done, []);
  });
}

test('flags that say what is there are fine, the version by its minor too', async (t) => {
  const { parts, context } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  const same = { ...AS_FOUND, controlPlaneNodes: 1, workerNodes: 1, kubernetesVersion: '1.37' };
  assert.equal((await miniUp(context(), parts, same)).already, true);
});

test('the version that is configured is the one whose components are built', async (t) => {
  const { parts, context, done } = await world(t);
  const { workspace } = context();
  await miniUp(context(), parts, { ...AS_FOUND, kubernetesVersion: 'v1.36' });
  assert.ok(done.includes('components v1.36.3'));
  await terminateCluster(context(), parts.machines);
  done.length = 0;
  const { kubectl } = await miniUp(context(), parts, AS_FOUND);
  assert.ok(done.includes('components v1.36.3'));
  assert.equal(kubectl, '/cache/kubectl2');
  assert.equal((await workspace.requireState()).kubernetesVersion, 'v1.36.3');
});

test('a version that is not in the catalogue is refused with those that are', async (t) => {
  const { parts, context, done } = await world(t);
  await assert.rejects(
    miniUp(context(), parts, { ...AS_FOUND, kubernetesVersion: 'v1.0.0' }),
    /v1\.37\.2, v1\.36\.3/,
  );
  assert.deepEqual(done, []);
});
