import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ClusterConfig, parseClusterConfig } from './cluster-config.ts';
import { withImage } from './edit.ts';
import { renderClusterConfig } from './template.ts';

const empty: ClusterConfig = {
  version: 'v1',
  name: 'mini',
  kubernetesVersion: 'v1.37.2',
  image: '',
  provider: { local: { controlPlaneNodes: 1, workerNodes: 1, stateDiskMiB: 256, egress: false } },
  attestation: { qemuVtpm: { acceptUnauthenticatedTpm: true, measurements: {} } },
  kms: { type: 'cluster' },
};
const measurements = {
  11: { expected: '22'.repeat(32), warnOnly: false },
  4: { expected: '11'.repeat(32), warnOnly: true },
};

test('a configuration whose image is not chosen yet is refused and says how to choose', () => {
  assert.throws(() => parseClusterConfig(renderClusterConfig(empty)), /image: .*asterism image measurements/);
});

test('image and measurements are filled in, all else stays', () => {
  const before = renderClusterConfig(empty).replace('name: mini', 'name: mini # mine');
  const after = withImage(before, 'sha256:ab', measurements);
  assert.deepEqual(parseClusterConfig(after), {
    ...empty,
    image: 'sha256:ab',
    attestation: { qemuVtpm: { acceptUnauthenticatedTpm: true, measurements } },
  });
  const comments = (text: string) => text.split('\n').filter((line) => line.includes('#'));
  assert.deepEqual(
    comments(after).map((line) => line.trim()),
    comments(before).map((line) => line.trim()),
  );
});

test('doing it twice changes nothing more', () => {
  const once = withImage(renderClusterConfig(empty), 'sha256:ab', measurements);
  assert.equal(withImage(once, 'sha256:ab', measurements), once);
});

for (const text of ['', '[]', 'a: [', `# ${'x'.repeat(300_000)}\na: b`]) {
  test(`${JSON.stringify(text.slice(0, 20))} is refused`, () => {
    assert.throws(() => withImage(text, 'x', {}), { code: 'ERR_CONFIG' });
  });
}
