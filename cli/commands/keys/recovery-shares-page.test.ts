// Follows docs/keys/recovery-shares.md literally.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { toBase64, toHex } from '@asterism/bytes/encoding';
import { clusterId, deriveKey, MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import { splitSecret } from '@asterism/shares/split';
import { parseShareText, renderShare } from '@asterism/shares/text';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';

const ROOT = join(import.meta.dirname, '../../..');
const PAGE = join(ROOT, 'docs/keys/recovery-shares.md');
const ID = '11111111-2222-3333-4444-555555555555';

const haveAge = spawnSync('age', ['--version']).status === 0;
if (!haveAge && process.env.CI !== undefined) throw new Error('the Debian package age is needed');

test('every command of the page does what the page says', {
  skip: !haveAge && 'NOT TESTED: install the Debian package age',
}, async () => {
  await using folder = await temporaryFolder();
  const [key, salt, measurementSalt] = [1, 2, 3].map((byte) => new Uint8Array(32).fill(byte)) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  const cwd = folder.file('workspace');
  const bin = folder.file('bin');
  await mkdir(bin);
  // The nodes of this cluster are nowhere: that is not waited for.
  const command = `#!/bin/sh\n[ "$1" != recover ] || set -- "$@" --timeout 1\nexec ${ROOT}/asterism "$@"\n`;
  await writeFile(join(bin, 'asterism'), command);
  await chmod(join(bin, 'asterism'), 0o755);
  const run = (script: string) => {
    const env = { ...process.env, XDG_CACHE_HOME: folder.file('cache'), PATH: `${bin}:${process.env.PATH}` };
    const { status, stdout, stderr } = spawnSync('bash', ['-euo', 'pipefail', '-c', script], {
      cwd,
      env,
      encoding: 'utf8',
      timeout: 120_000,
    });
    return { status, stdout, stderr };
  };
  await mkdir(cwd);
  assert.equal(run('asterism config generate local').status, 0);
  const config = await readFile(join(cwd, 'asterism-conf.yaml'), 'utf8');
  const measured = `    measurements:\n      4: {expected: "${'11'.repeat(32)}", warnOnly: false}\n`;
  await writeFile(
    join(cwd, 'asterism-conf.yaml'),
    config.replace('image: ""', 'image: sha256:aa').replace('    measurements:\n', measured),
  );
  const id = clusterId(deriveKey(key, salt, MEASUREMENT_SECRET_ID, 32), measurementSalt);
  const state = {
    schema: 1,
    name: 'asterism',
    uid: '00000001',
    provider: 'local',
    phase: 'initialized',
    kubernetesVersion: 'v1.37.2',
    image: 'sha256:aa',
    endpoint: '127.99.99.1',
    nodes: [{ name: 'cp-0', role: 'ControlPlane', address: '127.99.99.1' }],
    initSecret: 'c2VjcmV0',
    measurementSalt: toBase64(measurementSalt),
    clusterId: toHex(id),
  };
  await writeFile(join(cwd, 'asterism-state.json'), JSON.stringify(state));
  const file = join(cwd, 'asterism-mastersecret.json');
  const secret = { key: toBase64(key), salt: toBase64(salt) };
  await writeFile(file, JSON.stringify(secret));

  const blocks = [...(await readFile(PAGE, 'utf8')).matchAll(/^```sh\n(.*?)^```$/gms)].map(
    ([, script]) => script!,
  );
  assert.equal(blocks.length, 10);
  for (const script of blocks) {
    const { status, stdout, stderr } = run(script);
    // Exit code 4: the shares were enough, and no node asked.
    const expected = script.startsWith('asterism recover') ? 4 : 0;
    assert.equal(status, expected, `${script}\n${stdout}\n${stderr}`);
    if (expected === 4) assert.match(stderr, /No control-plane node in need of recovery/);
    if (script.startsWith('asterism keys derive'))
      assert.equal(stdout.trim(), toHex(deriveKey(key, salt, `key-${ID}`, 32)));
    if (script.startsWith('asterism keys combine elsewhere'))
      assert.deepEqual(JSON.parse(await readFile(file, 'utf8')), secret);
  }
  assert.deepEqual(JSON.parse(await readFile(file, 'utf8')), secret, 'out of escrow');
});

test('the page tells the numbers of words', async () => {
  const page = await readFile(PAGE, 'utf8');
  const secret = { key: new Uint8Array(32), salt: new Uint8Array(32) };
  const words = async (count: number, more = {}) => {
    const plan = { count, threshold: 2 };
    const [share] = await splitSecret({ ...secret, ...more }, new Uint8Array(32), plan);
    const text = renderShare(share!, undefined);
    assert.deepEqual(parseShareText(text), share);
    return Number(/Words: +(\d+)/.exec(text)![1]);
  };
  const [three, five] = [await words(3), await words(5)];
  const later = await words(3, { generation: 2, measurementSecret: new Uint8Array(32) });
  assert.ok(
    page.includes(`is ${three} words`) && page.includes(`(${five} for 3 of 5; ${later - three} more after`),
  );
});
