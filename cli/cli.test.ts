// Runs the real command as a child process.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { DEFAULT_VERSION, RELEASES } from '@asterism/kubernetes/components/catalogue';

const ASTERISM = join(import.meta.dirname, '../asterism');

function asterism(args: readonly string[], cwd: string) {
  const { status, stdout, stderr } = spawnSync(ASTERISM, args, {
    cwd,
    encoding: 'utf8',
    timeout: 60_000,
    stdio: ['ignore', 'pipe', 'pipe'],
    // An empty cache: what this machine has built must not change the outcome.
    env: { ...process.env, XDG_CACHE_HOME: join(cwd, '.cache') },
  });
  return { status, stdout, stderr };
}

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'asterism-cli-'));
  t.after(() => rm(path, { recursive: true }));
  return path;
}

for (const args of [
  [],
  ['bogus'],
  ['config'],
  ['config', 'generate', 'moon'],
  ['version', '--bogus'],
  ['version', '-o', 'xml'],
  ['version', 'surplus'],
  ['config', 'generate', 'local', '--name', 'Not_A_Name'],
  ['config', 'generate', 'local', '--name', 'a'.repeat(38)],
  ['config', 'generate', 'local', '-c', '0'],
  ['config', 'generate', 'local', '-w', '1e1'],
  ['config', 'generate', 'local', '--bogus'],
  ['local', 'remove'],
]) {
  test(`wrong usage exits with 1 and says why: asterism ${args.join(' ').slice(0, 60)}`, async (t) => {
    const cwd = await folder(t);
    const { status, stdout, stderr } = asterism(args, cwd);
    assert.equal(status, 1);
    assert.equal(stdout, '');
    assert.match(stderr, /Usage:|error:.*\(run with --help to see what is possible\)/s);
    assert.doesNotMatch(stderr, /\n\s+at /, 'a stack without --debug');
  });
}

test('asking for help is no failure and names the exit codes', async (t) => {
  const { status, stdout } = asterism(['--help'], await folder(t));
  assert.equal(status, 0);
  assert.match(stdout, /2 evidence false, 3 policy not met, 4 not reachable/);
});

test('version answers in text and in JSON', async (t) => {
  const cwd = await folder(t);
  assert.match(asterism(['version'], cwd).stdout, /^asterism \d+\.\d+\.\d+ \(Node 24\./);
  const json = JSON.parse(asterism(['version', '-o', 'json'], cwd).stdout);
  assert.match(json.asterism, /^\d+\.\d+\.\d+$/);
});

test('--version says what version does', async (t) => {
  const cwd = await folder(t);
  const { status, stdout } = asterism(['--version'], cwd);
  assert.equal(status, 0);
  assert.equal(stdout, asterism(['version'], cwd).stdout);
});

test('the help of components build names the variable of the mirror', async (t) => {
  const { stdout } = asterism(['components', 'build', '--help'], await folder(t));
  assert.match(stdout, /ASTERISM_COMPONENTS_MIRROR/);
});

test('config generate writes mode 0600 and never overwrites without --force', async (t) => {
  const cwd = await folder(t);
  assert.equal(asterism(['config', 'generate', 'local', '--name', 'one'], cwd).status, 0);
  const path = join(cwd, 'asterism-conf.yaml');
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  const again = asterism(['config', 'generate', 'local', '--name', 'two'], cwd);
  assert.equal(again.status, 1);
  assert.match(again.stderr, /exists and is not overwritten/);
  assert.match(await readFile(path, 'utf8'), /^name: one$/m);
  assert.equal(asterism(['config', 'generate', 'local', '--name', 'two', '--force'], cwd).status, 0);
  assert.match(await readFile(path, 'utf8'), /^name: two$/m);
});

test('config generate -f - prints and writes nothing', async (t) => {
  const cwd = await folder(t);
  const { status, stdout } = asterism(['config', 'generate', 'local', '-f', '-', '-c', '3', '-w', '2'], cwd);
  assert.equal(status, 0);
  assert.match(stdout, /controlPlaneNodes: 3\n\s+workerNodes: 2/);
  await assert.rejects(stat(join(cwd, 'asterism-conf.yaml')), { code: 'ENOENT' });
});

test('config generate takes no other file, which nothing would read, and says so', async (t) => {
  const cwd = await folder(t);
  for (const args of [
    ['-f', 'other.yaml'],
    ['-f', join(cwd, 'other.yaml')],
    ['-f', '-', '-o', 'json'],
  ]) {
    const { status, stdout, stderr } = asterism(['config', 'generate', 'local', ...args], cwd);
    assert.equal(status, 1);
    assert.equal(stdout, '');
    assert.match(stderr, /error: .*(asterism-conf\.yaml of the workspace|leave out -o json)/);
  }
  assert.deepEqual(await readdir(cwd), []);
});

test('config generate takes versions of the catalogue, by their minor too, and no others', async (t) => {
  const cwd = await folder(t);
  const generate = (version: string) =>
    asterism(['config', 'generate', 'local', '-f', '-', '-k', version], cwd);
  const minors = RELEASES.map(({ version }) => version.replace(/\.\d+$/, ''));
  for (const [i, { version }] of RELEASES.entries()) {
    assert.match(generate(version).stdout, new RegExp(`^kubernetesVersion: ${version}$`, 'm'));
    assert.match(generate(minors[i]!).stdout, new RegExp(`^kubernetesVersion: ${version}$`, 'm'));
  }
  const { status, stderr } = generate('v1.2.3');
  assert.equal(status, 1);
  assert.ok(stderr.includes(DEFAULT_VERSION), stderr);
  const { stdout } = asterism(['config', 'generate', 'local', '-f', '-'], cwd);
  assert.match(stdout, new RegExp(`^kubernetesVersion: ${DEFAULT_VERSION}$`, 'm'));
});

test('what config generate says to run next is for the file that it wrote', async (t) => {
  const cwd = await folder(t);
  const here = asterism(['config', 'generate', 'local'], cwd).stdout;
  assert.match(here, /`asterism image measurements --write-config`/);
  const there = asterism(['config', 'generate', 'local', '--workspace', 'a'], cwd).stdout;
  assert.ok(there.includes(`\`asterism --workspace ${join(cwd, 'a')} image measurements --write-config\``));
});

test('--workspace names another folder, before or after the command', async (t) => {
  const cwd = await folder(t);
  assert.equal(asterism(['--workspace', 'a', 'config', 'generate', 'local'], cwd).status, 0);
  assert.equal(asterism(['config', 'generate', 'local', '--workspace', 'b'], cwd).status, 0);
  await stat(join(cwd, 'a/asterism-conf.yaml'));
  await stat(join(cwd, 'b/asterism-conf.yaml'));
});

test('--debug shows the stack', async (t) => {
  const cwd = await folder(t);
  await writeFile(join(cwd, 'asterism-conf.yaml'), 'mine');
  const { stderr } = asterism(['config', 'generate', 'local', '--debug'], cwd);
  assert.match(stderr, /\n\s+at /);
});

const vector = {
  key: Buffer.from(Array.from({ length: 32 }, (_, i) => i)).toString('base64'),
  salt: Buffer.from(Array.from({ length: 32 }, (_, i) => i + 32)).toString('base64'),
};
const MEASUREMENT_SECRET = 'ea7fedd14f5a29b1b8545592fc20bfdae06918e4ff447b1a0b8e4f3356005bda';

test('keys derive prints the vector, in hexadecimal alone or as JSON', async (t) => {
  const cwd = await folder(t);
  await writeFile(join(cwd, 'secret.json'), JSON.stringify(vector));
  const args = ['keys', 'derive', '--master-secret', 'secret.json', '--data-key-id', 'measurementSecret'];
  assert.deepEqual(asterism(args, cwd), { status: 0, stdout: `${MEASUREMENT_SECRET}\n`, stderr: '' });
  assert.equal(JSON.parse(asterism([...args, '-o', 'json'], cwd).stdout).key, MEASUREMENT_SECRET);
  const short = asterism([...args, '--length', '16'], cwd).stdout.trim();
  assert.equal(short, MEASUREMENT_SECRET.slice(0, 32));
});

test('keys derive takes a disk UUID in either case', async (t) => {
  const cwd = await folder(t);
  await writeFile(join(cwd, 'secret.json'), JSON.stringify(vector));
  const derive = (id: string) =>
    asterism(['keys', 'derive', '--master-secret', 'secret.json', '--data-key-id', id], cwd).stdout;
  const id = 'ABCDEF01-2345-6789-abcd-ef0123456789';
  assert.equal(derive(id), derive(id.toLowerCase()));
  assert.match(derive(id), /^[0-9a-f]{64}\n$/);
});

for (const [what, args, secret] of [
  ['a file that is missing', ['--data-key-id', 'x'], undefined],
  ['no id', [], JSON.stringify(vector)],
  ['an empty id', ['--data-key-id', ''], JSON.stringify(vector)],
  ['an id with its prefix', ['--data-key-id', 'key-x'], JSON.stringify(vector)],
  ['an id with a line break', ['--data-key-id', 'a\nb'], JSON.stringify(vector)],
  ['length 0', ['--data-key-id', 'x', '--length', '0'], JSON.stringify(vector)],
  ['more than HKDF gives', ['--data-key-id', 'x', '--length', '8161'], JSON.stringify(vector)],
  ['half a secret', ['--data-key-id', 'x'], JSON.stringify({ key: vector.key })],
  ['a short key', ['--data-key-id', 'x'], JSON.stringify({ ...vector, key: 'AAAA' })],
] as const) {
  test(`keys derive with ${what} exits with 1, prints no key and quotes no secret`, async (t) => {
    const cwd = await folder(t);
    if (secret !== undefined) await writeFile(join(cwd, 'secret.json'), secret);
    const { status, stdout, stderr } = asterism(
      ['keys', 'derive', '--master-secret', 'secret.json', ...args],
      cwd,
    );
    assert.equal(status, 1);
    assert.equal(stdout, '');
    assert.ok(!stderr.includes(vector.key.slice(0, 12)));
  });
}

for (const command of [['create'], ['init'], ['verify'], ['recover'], ['status'], ['terminate', '--yes']]) {
  test(`asterism ${command[0]} in an empty folder exits with 1 and says what to run first`, async (t) => {
    const { status, stdout, stderr } = asterism(command, await folder(t));
    assert.equal(status, 1);
    assert.equal(stdout, '');
    assert.match(stderr, /asterism (config generate local|create)/);
  });
}

test('an unknown key in the configuration is an error of every command that reads it', async (t) => {
  const cwd = await folder(t);
  asterism(['config', 'generate', 'local'], cwd);
  const path = join(cwd, 'asterism-conf.yaml');
  await writeFile(path, (await readFile(path, 'utf8')).replace('workerNodes:', 'workerNode:'));
  for (const command of ['create', 'verify']) {
    const { status, stderr } = asterism([command], cwd);
    assert.equal(status, 1);
    assert.match(stderr, /provider\.local\.workerNode: unknown key; did you mean 'workerNodes'\?/);
  }
});

for (const [what, change] of [
  ['PCR 24', (text: string) => text.replace('      4:', '      24:')],
  ['a missing key', (text: string) => text.replace(/^name: .*$/m, '')],
  ['another type', (text: string) => text.replace(/workerNodes: .*$/m, 'workerNodes: [x]')],
  ['nothing', () => ''],
  ['half a mapping', () => 'a: ['],
] as const) {
  test(`a configuration with ${what} is refused in words, not in those of a library`, async (t) => {
    const cwd = await folder(t);
    await initialised(cwd);
    const path = join(cwd, 'asterism-conf.yaml');
    const text = await readFile(path, 'utf8');
    await writeFile(path, change(text));
    assert.notEqual(change(text), text);
    const { status, stderr } = asterism(['verify'], cwd);
    assert.equal(status, 1);
    assert.ok(stderr.includes(`error: ${path}:`), stderr);
    assert.doesNotMatch(stderr, /"code":|because:/);
  });
}

test('a damaged state file leaves a way: the error names local list', async (t) => {
  const cwd = await folder(t);
  await writeFile(join(cwd, 'asterism-state.json'), '{"schema": 1, "uid": 5}');
  for (const args of [['status'], ['terminate', '--yes'], ['mini', 'down', '--workspace', cwd]]) {
    const { status, stderr } = asterism(args, cwd);
    assert.equal(status, 1);
    assert.match(stderr, /asterism local list.*asterism local remove UID/s);
    assert.doesNotMatch(stderr, /"code":/);
  }
});

/** A configuration that could be used, and a state of an initialised cluster whose node is nowhere. */
async function initialised(cwd: string): Promise<void> {
  const expected = '11'.repeat(32);
  asterism(['config', 'generate', 'local'], cwd);
  const path = join(cwd, 'asterism-conf.yaml');
  const text = (await readFile(path, 'utf8'))
    .replace('image: ""', 'image: sha256:aa')
    .replace(
      '    measurements:\n',
      `    measurements:\n      4: {expected: "${expected}", warnOnly: false}\n`,
    );
  await writeFile(path, text);
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
    clusterId: 'ab'.repeat(32),
  };
  await writeFile(join(cwd, 'asterism-state.json'), JSON.stringify(state));
}

test('verify of nodes that do not answer exits with 4 and still tells about each', async (t) => {
  const cwd = await folder(t);
  await initialised(cwd);
  const { status, stdout } = asterism(['verify', '-o', 'json'], cwd);
  assert.equal(status, 4);
  const result = JSON.parse(stdout);
  assert.equal(result.outcome, 'failed');
  assert.equal(result.nodes[0].outcome, 'unreachable');
});

test('verify ends no line in an empty remark of a library', async (t) => {
  const cwd = await folder(t);
  await initialised(cwd);
  const { stdout } = asterism(['verify'], cwd);
  assert.match(stdout, /unreachable/);
  assert.doesNotMatch(stdout, /Resolution note/);
});

test('status of a cluster whose machines are gone says so and what its evidence is worth', async (t) => {
  const cwd = await folder(t);
  await initialised(cwd);
  const { status, stdout } = asterism(['status'], cwd);
  assert.equal(status, 0);
  assert.match(stdout, /cp-0 +ControlPlane +127\.99\.99\.1 +unknown +unknown/);
  assert.match(stdout, /asterism terminate/);
  assert.match(stdout, /whoever controls the host can forge/);
});

test('recover where nobody asks exits with 4', async (t) => {
  const cwd = await folder(t);
  await initialised(cwd);
  await writeFile(join(cwd, 'asterism-mastersecret.json'), JSON.stringify(vector));
  const { status, stderr } = asterism(['recover', '--timeout', '1'], cwd);
  assert.equal(status, 4);
  assert.match(stderr, /No control-plane node/);
});

test('terminate asks, and without a terminal wants --yes', async (t) => {
  const cwd = await folder(t);
  await initialised(cwd);
  const { status, stderr } = asterism(['terminate'], cwd);
  assert.equal(status, 1);
  assert.match(stderr, /--yes/);
  await stat(join(cwd, 'asterism-state.json'));
});
