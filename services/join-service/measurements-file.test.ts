import assert from 'node:assert/strict';
import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Measurements } from '@asterism/attestation/measurements';
import { ParseError } from '@asterism/errors/errors';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { readMeasurements, watchMeasurements } from './measurements-file.ts';

const zero = '0'.repeat(64);
const measurements = (pcr11: string, pcr15: unknown = { expected: zero, warnOnly: false }) =>
  JSON.stringify({ 11: { expected: pcr11.repeat(64), warnOnly: false }, 15: pcr15 });

/** What the kubelet does with a ConfigMap volume: a new folder, and one link that is swapped. */
async function publish(folder: TemporaryFolder, generation: number, text: string): Promise<void> {
  const data = `..${generation}`;
  await mkdir(folder.file(data));
  await writeFile(`${folder.file(data)}/measurements`, text);
  await symlink(data, folder.file('..data_tmp'));
  await rename(folder.file('..data_tmp'), folder.file('..data'));
  if (generation === 1) await symlink('..data/measurements', folder.file('measurements'));
  else await rm(folder.file(`..${generation - 1}`), { recursive: true });
}

for (const [what, text, why] of [
  ['nothing', '', /not JSON/],
  ['an empty set', '{}', /empty/],
  ['without PCR 15', JSON.stringify({ 11: { expected: zero } }), /PCR 15 must be enforced/],
  [
    'PCR 15 that only warns',
    measurements('a', { expected: zero, warnOnly: true }),
    /PCR 15 must be enforced/,
  ],
  [
    "PCR 15 of a cluster's members",
    measurements('a', { expected: 'b'.repeat(64) }),
    /PCR 15 must be enforced/,
  ],
  ['a short value', measurements('a').replace('aa', ''), /32 bytes/],
  ['too much', `${measurements('a')}${' '.repeat(70_000)}`, /bytes/],
] as const) {
  test(`measurements are refused: ${what}`, async () => {
    await using folder = await temporaryFolder();
    await writeFile(folder.file('measurements'), text);
    await assert.rejects(readMeasurements(folder.file('measurements')), (error: ParseError) => {
      assert.ok(error instanceof ParseError && error.code === 'ERR_MEASUREMENTS', String(error));
      assert.match(error.message, why);
      return true;
    });
  });
}

test('no file: refused', async () => {
  await using folder = await temporaryFolder();
  await assert.rejects(readMeasurements(folder.file('measurements')), { code: 'ERR_MEASUREMENTS' });
});

test('a swapped volume is noticed each time; bad content is told and changes nothing', async () => {
  await using folder = await temporaryFolder();
  await publish(folder, 1, measurements('a'));
  const updates: Measurements[] = [];
  const errors: unknown[] = [];
  const unwatch = watchMeasurements(
    folder.file('measurements'),
    (next) => updates.push(next),
    (error) => errors.push(error),
  );
  const until = async (condition: () => boolean) => {
    for (const limit = Date.now() + 5000; !condition(); await delay(20)) assert.ok(Date.now() < limit);
  };
  await publish(folder, 2, measurements('b'));
  await until(() => updates.length === 1);
  assert.equal(updates[0]!.get(11)!.expected[0], 0xbb);
  await publish(folder, 3, '{"11": "garbage"}');
  await until(() => errors.length === 1);
  assert.equal(updates.length, 1);
  await publish(folder, 4, measurements('c'));
  await until(() => updates.length === 2);
  assert.equal(updates[1]!.get(11)!.expected[0], 0xcc);
  unwatch();
  await publish(folder, 5, measurements('d'));
  await delay(400);
  assert.equal(updates.length, 2);
});
