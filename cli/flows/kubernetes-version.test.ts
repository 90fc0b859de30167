import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubernetesVersion } from '../parts.ts';
import { chooseVersion } from './kubernetes-version.ts';

const entry = (version: string, isDefault = false): KubernetesVersion => ({
  version,
  isDefault,
  built: false,
  kubectl: '',
  components: [],
});
const versions = [entry('v1.37.2', true), entry('v1.3.9'), entry('v1.36.9'), entry('v1.36.10')];
const choose = async (wanted: string | undefined) =>
  (await chooseVersion({ list: async () => versions }, wanted)).version;

for (const [wanted, version] of [
  [undefined, 'v1.37.2'],
  ['v1.37.2', 'v1.37.2'],
  ['1.37.2', 'v1.37.2'],
  ['v1.36', 'v1.36.10'],
  ['1.36', 'v1.36.10'],
  ['v1.36.9', 'v1.36.9'],
  ['v1.3', 'v1.3.9'],
] as const) {
  test(`${wanted ?? 'nothing'} means ${version}`, async () => assert.equal(await choose(wanted), version));
}

for (const wanted of ['v1', '1', 'v1.38', 'v1.36.1', 'latest', '', 'v1.36.', 'v1.36.10.']) {
  test(`${JSON.stringify(wanted)} is refused with what there is`, async () => {
    await assert.rejects(choose(wanted), /not in the catalogue; there are: v1\.37\.2, v1\.3\.9/);
  });
}
