// Runs the real command as a child process.
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { toBase64, toHex } from '@asterism/bytes/encoding';
import { clusterId, deriveKey, MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import { splitSecret } from '@asterism/shares/split';
import { renderShare, shareCode } from '@asterism/shares/text';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';

const ASTERISM = join(import.meta.dirname, '../../../asterism');
const KEY = Uint8Array.from({ length: 32 }, (_, i) => i);
const SALT = Uint8Array.from({ length: 32 }, (_, i) => i + 32);
const SECRET = { key: KEY, salt: SALT };
const MEASUREMENT_SALT = new Uint8Array(32).fill(7);
const MEASUREMENT_SECRET = deriveKey(KEY, SALT, MEASUREMENT_SECRET_ID, 32);
const CLUSTER = clusterId(MEASUREMENT_SECRET, MEASUREMENT_SALT);
const SECRET_FILE = 'asterism-mastersecret.json';

let folder: TemporaryFolder;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder[Symbol.asyncDispose]());

function asterism(cwd: string, args: readonly string[], input = '') {
  const { status, stdout, stderr } = spawnSync(ASTERISM, args, {
    cwd,
    encoding: 'utf8',
    timeout: 60_000,
    input,
  });
  for (const text of [stdout, stderr]) assertNoSecret(text);
  return { status, stdout, stderr };
}

/** Neither the key nor a part of it, in either writing. */
function assertNoSecret(text: string): void {
  assert.ok(!text.includes(toBase64(KEY).slice(4, 16)), text);
  assert.ok(!text.toLowerCase().includes(toHex(KEY).slice(8, 24)), text);
}

let workspaces = 0;

/** A workspace of an initialized cluster; with `secret` the master-secret file too. */
async function workspace(options: { secret?: object; state?: boolean } = {}): Promise<string> {
  const path = folder.file(`workspace-${workspaces++}`);
  await mkdir(path);
  const state = {
    schema: 1,
    name: 'demo',
    uid: '00000001',
    provider: 'local',
    phase: 'initialized',
    kubernetesVersion: 'v1.37.2',
    image: 'sha256:aa',
    endpoint: '127.99.99.1',
    nodes: [{ name: 'cp-0', role: 'ControlPlane', address: '127.99.99.1' }],
    initSecret: 'c2VjcmV0',
    measurementSalt: toBase64(MEASUREMENT_SALT),
    clusterId: toHex(CLUSTER),
  };
  if (options.state !== false) await writeFile(join(path, 'asterism-state.json'), JSON.stringify(state));
  const secret = options.secret ?? { key: toBase64(KEY), salt: toBase64(SALT) };
  await writeFile(join(path, SECRET_FILE), JSON.stringify(secret));
  return path;
}

/** The same without a master-secret file. */
async function bare(options: { state?: boolean } = {}): Promise<string> {
  const path = await workspace(options);
  execFileSync('rm', [join(path, SECRET_FILE)]);
  return path;
}

const sharesIn = async (path: string) => (await readdir(path)).sort().map((name) => join(path, name));

async function secretIn(path: string) {
  return JSON.parse(await readFile(path, 'utf8'));
}

describe('keys split and combine', () => {
  test('give the file back, from any two of three, and show nothing secret', async () => {
    const from = await workspace();
    const { status, stdout, stderr } = asterism(from, [
      'keys',
      'split',
      '--shares',
      '3',
      '--threshold',
      '2',
      '--qr',
    ]);
    assert.equal(status, 0, stderr);
    const files = await sharesIn(join(from, 'recovery-shares'));
    assert.deepEqual(
      files.map((file) => file.split('/').at(-1)),
      [1, 2, 3].flatMap((i) => [`recovery-share-${i}-of-3.svg`, `recovery-share-${i}-of-3.txt`]),
    );
    for (const file of files) assert.equal((await stat(file)).mode & 0o777, 0o600);
    const texts = files.filter((file) => file.endsWith('.txt'));
    for (const file of texts) {
      const text = await readFile(file, 'utf8');
      assert.match(text, /# Cluster: +demo\n/);
      const lines = text.split('\n').filter((line) => /^ +\d/.test(line));
      for (const line of lines) assert.ok(!(stdout + stderr).includes(line.slice(5)), 'a share was printed');
    }
    for (const [a, b] of [
      [0, 1],
      [0, 2],
      [2, 1],
    ] as const) {
      const to = await bare();
      const done = asterism(to, ['keys', 'combine', texts[a]!, texts[b]!]);
      assert.equal(done.status, 0, done.stderr);
      assert.deepEqual(await secretIn(join(to, SECRET_FILE)), await secretIn(join(from, SECRET_FILE)));
      assert.equal((await stat(join(to, SECRET_FILE))).mode & 0o777, 0o600);
    }
  });

  test('carry generation and measurement secret', async () => {
    const secret = {
      key: toBase64(new Uint8Array(32).fill(9)),
      salt: toBase64(SALT),
      generation: 3,
      measurementSecret: toBase64(MEASUREMENT_SECRET),
    };
    const from = await workspace({ secret });
    assert.equal(asterism(from, ['keys', 'split', '--shares', '2', '--threshold', '2']).status, 0);
    const files = await sharesIn(join(from, 'recovery-shares'));
    const { status, stdout } = asterism(from, [
      'keys',
      'combine',
      ...files,
      '--out',
      'again.json',
      '-o',
      'json',
    ]);
    assert.equal(status, 0);
    assert.equal(JSON.parse(stdout).generation, 3);
    assert.deepEqual(await secretIn(join(from, 'again.json')), secret);
  });

  test('--print shows shares and writes nothing; what is printed can be typed again', async () => {
    const from = await workspace();
    const args = ['keys', 'split', '--shares', '3', '--threshold', '2', '--print', '--qr'];
    const { status, stdout } = asterism(from, args);
    assert.equal(status, 0);
    assert.ok(stdout.includes('█') && stdout.includes('demo: recovery share 2 of 3'));
    assert.ok(!existsSync(join(from, 'recovery-shares')));
    const [first, second] = JSON.parse(asterism(from, [...args, '-o', 'json']).stdout).shares;
    const to = await bare();
    const typed = asterism(to, ['keys', 'combine'], `${first.text}${second.code}\n`);
    assert.equal(typed.status, 0, typed.stderr);
    assert.match(typed.stderr, /can be seen on the screen/);
    assert.deepEqual(await secretIn(join(to, SECRET_FILE)), await secretIn(join(from, SECRET_FILE)));
  });

  test('--check writes nothing', async () => {
    const from = await workspace();
    asterism(from, ['keys', 'split', '--shares', '2', '--threshold', '2', '--out', 'x']);
    const to = await bare();
    const { status, stdout } = asterism(to, [
      'keys',
      'combine',
      '--check',
      ...(await sharesIn(join(from, 'x'))),
    ]);
    assert.equal(status, 0);
    assert.match(stdout, new RegExp(toHex(CLUSTER)));
    assert.deepEqual(await readdir(to), ['asterism-state.json']);
  });

  for (const [what, args] of [
    ['more needed than there are', ['--shares', '2', '--threshold', '3']],
    ['one share', ['--shares', '1', '--threshold', '1']],
    ['a threshold of one', ['--shares', '3', '--threshold', '1']],
    ['17 shares', ['--shares', '17', '--threshold', '2']],
    [
      'another cluster than that of the state file',
      ['--shares', '3', '--threshold', '2', '--cluster-id', 'ee'.repeat(32)],
    ],
    ['a file that is missing', ['--shares', '3', '--threshold', '2', '--master-secret', 'nowhere.json']],
  ] as const) {
    test(`split refuses ${what}`, async () => {
      const from = await workspace();
      assert.equal(asterism(from, ['keys', 'split', ...args]).status, 1);
      assert.ok(!existsSync(join(from, 'recovery-shares')));
    });
  }

  test('a secret that is not of the cluster is not split, and not escrowed', async () => {
    const from = await workspace({ secret: { key: toBase64(new Uint8Array(32)), salt: toBase64(SALT) } });
    const { status, stderr } = asterism(from, ['keys', 'split', '--shares', '3', '--threshold', '2']);
    assert.equal(status, 1);
    assert.match(stderr, /not the master secret of the cluster demo.*ERR_FOREIGN_SECRET/s);
    assert.deepEqual((await readdir(from)).sort(), [SECRET_FILE, 'asterism-state.json'].sort());
  });

  test('without a cluster, its id is needed and enough', async () => {
    const from = await workspace({ state: false });
    const args = ['keys', 'split', '--shares', '3', '--threshold', '2'];
    assert.match(asterism(from, args).stderr, /ERR_NO_CLUSTER/);
    assert.equal(asterism(from, [...args, '--cluster-id', toHex(CLUSTER).toUpperCase()]).status, 0);
  });

  test('nothing is overwritten: neither a share, nor a master secret', async () => {
    const from = await workspace();
    const shares = join(from, 'recovery-shares');
    await mkdir(shares);
    await writeFile(join(shares, 'recovery-share-2-of-3.txt'), 'mine');
    const { status, stderr } = asterism(from, ['keys', 'split', '--shares', '3', '--threshold', '2']);
    assert.equal(status, 1);
    assert.match(stderr, /ERR_EXISTS/);
    assert.deepEqual(await readdir(shares), ['recovery-share-2-of-3.txt'], 'no half of a split stays');
    assert.equal(await readFile(join(shares, 'recovery-share-2-of-3.txt'), 'utf8'), 'mine');
    asterism(from, ['keys', 'split', '--shares', '2', '--threshold', '2', '--out', 'x']);
    const combined = asterism(from, ['keys', 'combine', ...(await sharesIn(join(from, 'x')))]);
    assert.match(combined.stderr, /ERR_EXISTS/);
  });

  test('a full disk leaves no share behind', {
    skip: process.getuid?.() !== 0 && 'mounting needs root',
  }, async (t) => {
    const from = await workspace();
    const small = join(from, 'small');
    await mkdir(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=32k', 'tmpfs', small]);
    t.after(() => execFileSync('umount', [small]));
    // Room for the first shares, and not for all of them.
    await writeFile(join(small, 'filler'), new Uint8Array(12 << 10));
    const out = ['--out', 'small/shares'];
    const { status, stderr } = asterism(from, [
      'keys',
      'split',
      '--shares',
      '16',
      '--threshold',
      '2',
      ...out,
    ]);
    assert.equal(status, 1);
    assert.match(stderr, /cannot be written: no space left on device.*ERR_WRITE/s);
    assert.deepEqual(await readdir(small), ['filler']);
    await writeFile(join(small, 'filler'), new Uint8Array(1 << 17)).catch(() => {});
    asterism(from, ['keys', 'split', '--shares', '2', '--threshold', '2', '--out', 'x']);
    const files = await sharesIn(join(from, 'x'));
    assert.match(asterism(from, ['keys', 'combine', ...files, '--out', 'small/s.json']).stderr, /ERR_WRITE/);
    assert.deepEqual(await readdir(small), ['filler']);
  });
});

describe('shares that do not fit', () => {
  /** Files: a, b, c of one split; d of another cluster; e of another split; f of another generation. */
  async function files(cwd: string): Promise<void> {
    const plan = { count: 3, threshold: 3 };
    const own = await splitSecret(SECRET, CLUSTER, plan);
    const [foreign] = await splitSecret(SECRET, new Uint8Array(32).fill(0xee), plan);
    const [other] = await splitSecret(SECRET, CLUSTER, plan);
    const later = { ...SECRET, generation: 2, measurementSecret: MEASUREMENT_SECRET };
    const [, , newer] = await splitSecret(later, CLUSTER, plan);
    const all = [...own, foreign!, other!, newer!];
    for (const [i, share] of all.entries())
      await writeFile(join(cwd, 'abcdef'[i]!), renderShare(share, 'demo'));
  }

  test('are named, each with the reason, and nothing is written', async () => {
    const cwd = await bare();
    await files(cwd);
    const words = (await readFile(join(cwd, 'c'), 'utf8')).trimEnd().split(' ');
    await writeFile(
      join(cwd, 'damaged'),
      [...words.slice(0, -1), words.at(-1) === 'zoo' ? 'zone' : 'zoo'].join(' '),
    );
    await writeFile(join(cwd, 'short'), words.slice(0, -1).join(' '));
    await writeFile(join(cwd, 'binary'), new Uint8Array(300).fill(0xff));
    await writeFile(join(cwd, 'large'), 'x'.repeat(1 << 19));
    const names = [
      'a',
      'b',
      'a',
      'd',
      'e',
      'f',
      'damaged',
      'short',
      'binary',
      'large',
      'nowhere',
      '/dev/zero',
      SECRET_FILE,
    ];
    await writeFile(join(cwd, SECRET_FILE), JSON.stringify({ key: toBase64(KEY), salt: toBase64(SALT) }));
    const { status, stderr } = asterism(cwd, ['keys', 'combine', ...names, '--out', 'new.json']);
    assert.equal(status, 1);
    for (const line of [
      /the shares are not enough: 2 of 3 needed/,
      /^a: is the same share as a: share 1 of 3$/m,
      /^d: is of another cluster, eeeeeeeeeeeeeeee; shares of [0-9a-f]{16} are needed$/m,
      /^e: is of another split, [0-9a-f]{16}, than the others/m,
      /^f: is of generation 2 of the master secret; the others are of generation 1/m,
      /^damaged: word \d+ \(line \d+, word \d of it\) is wrong/m,
      /^short: it should have \d+ words; there are \d+$/m,
      /^binary: .*UTF-8/m,
      /^large: .*larger/m,
      /^nowhere: does not exist/m,
      /^\/dev\/zero: .*no regular file/m,
      /^asterism-mastersecret.json: word 1 .* is not a word/m,
    ])
      assert.match(stderr, line);
    assert.ok(!existsSync(join(cwd, 'new.json')));
  });

  test('do no harm where the others are enough, and are named all the same', async () => {
    const cwd = await bare();
    await files(cwd);
    const { status, stderr } = asterism(cwd, ['keys', 'combine', 'e', 'a', 'd', 'b', 'c']);
    assert.equal(status, 0, stderr);
    assert.match(stderr, /warning: e: is of another split/);
    assert.match(stderr, /warning: d: is of another cluster/);
    assert.equal((await secretIn(join(cwd, SECRET_FILE))).key, toBase64(KEY));
  });

  test('are asked for again where they are typed', async () => {
    const cwd = await bare();
    await files(cwd);
    const text = async (name: string) => readFile(join(cwd, name), 'utf8');
    const input = [
      'these are no words\n\n',
      await text('a'),
      await text('a'),
      await text('d'),
      '\n\n',
      (await text('b')).split('\n').slice(0, 20).join('\n'),
      '\n',
      '\n',
      await text('b'),
      (await text('c')).toUpperCase(),
    ].join('');
    const { status, stderr } = asterism(cwd, ['keys', 'combine'], input);
    assert.equal(status, 0, stderr);
    for (const line of [
      /warning: entry 1: word 1 .*; give this share again/,
      /entry 2 \(there is no usable share yet\):/,
      /warning: entry 3: is the same share as entry 2/,
      /warning: entry 4: is of another cluster/,
      /warning: entry 5: it should have \d+ words; there are \d+; give this share again/,
      /entry 7 \(2 of 3 needed\):/,
    ])
      assert.match(stderr, line);
  });

  test('end in an error where the input ends', async () => {
    const cwd = await bare();
    await files(cwd);
    const { status, stderr } = asterism(cwd, ['keys', 'combine'], await readFile(join(cwd, 'a'), 'utf8'));
    assert.equal(status, 1);
    assert.match(stderr, /1 of 3 needed/);
    assert.match(asterism(cwd, ['keys', 'combine'], 'zoo '.repeat(100_000)).stderr, /no share/);
    assert.match(asterism(cwd, ['keys', 'combine'], '\n\nzoo\n\n'.repeat(100)).stderr, /ERR_SHARES/);
  });

  test('an attacker with enough forged shares gives a secret that is not of the cluster', async () => {
    const cwd = await bare();
    const forged = await splitSecret({ ...SECRET, key: new Uint8Array(32) }, CLUSTER, {
      count: 2,
      threshold: 2,
    });
    for (const [i, share] of forged.entries()) await writeFile(join(cwd, `${i}`), shareCode(share));
    const { status, stderr } = asterism(cwd, ['keys', 'combine', '0', '1']);
    assert.equal(status, 1);
    assert.match(stderr, /ERR_FOREIGN_SECRET/);
    assert.ok(!existsSync(join(cwd, SECRET_FILE)));
  });

  test('Ctrl-C while shares are typed ends the command', async () => {
    const cwd = await bare();
    const child = spawn(ASTERISM, ['keys', 'combine'], {
      cwd,
      stdio: ['pipe', 'ignore', 'pipe'],
      timeout: 30_000,
    });
    child.stderr.setEncoding('utf8');
    let said = '';
    for await (const chunk of child.stderr) {
      said += chunk;
      if (said.includes('entry 1') && !said.includes('stopping')) child.kill('SIGINT');
    }
    assert.match(said, /ERR_INTERRUPTED/);
  });
});

describe('shares in place of the master-secret file', () => {
  test('keys derive takes them from files and from standard input', async () => {
    const from = await workspace();
    asterism(from, ['keys', 'split', '--shares', '3', '--threshold', '2', '--out', 'x']);
    const [, b, c] = await sharesIn(join(from, 'x'));
    const cwd = await bare();
    const derive = ['keys', 'derive', '--data-key-id', 'measurementSecret'];
    const expected = `${toHex(MEASUREMENT_SECRET)}\n`;
    assert.equal(asterism(cwd, [...derive, '--share', b!, '--share', c!]).stdout, expected);
    const input = (await readFile(b!, 'utf8')) + (await readFile(c!, 'utf8'));
    assert.equal(asterism(cwd, [...derive, '--shares-prompt'], input).stdout, expected);
    for (const args of [
      ['--share', b!],
      ['--share', b!, '--share', b!],
      ['--share', b!, '--share', c!, '--master-secret', 'x'],
      ['--share', b!, '--shares-prompt'],
      [],
    ]) {
      const { status, stdout } = asterism(cwd, [...derive, ...args]);
      assert.equal(status, 1, args.join(' '));
      assert.equal(stdout, '');
    }
    const stateless = asterism(await bare({ state: false }), [...derive, '--share', b!, '--share', c!]);
    assert.equal(stateless.stdout, expected);
    assert.match(stateless.stderr, new RegExp(`of cluster ${toHex(CLUSTER)}; there is no state file`));
  });
});

describe('keys escrow', () => {
  const haveAge = spawnSync('age', ['--version']).status === 0;
  if (!haveAge && process.env.CI !== undefined) throw new Error('the Debian package age is needed');
  const skip = !haveAge && 'NOT TESTED against age: install the Debian package age';

  /** A new identity in a file, and its recipient. */
  function identity(cwd: string, name: string): string {
    execFileSync('age-keygen', ['--output', name], { cwd, stdio: 'ignore' });
    return execFileSync('age-keygen', ['-y', name], { cwd, encoding: 'utf8' }).trim();
  }

  test('age opens what we encrypted, and we what age encrypted', { skip }, async () => {
    const cwd = await workspace();
    const [alice, bob] = [identity(cwd, 'alice'), identity(cwd, 'bob')];
    await writeFile(join(cwd, 'recipients'), `# Bob\n${bob}\n`);
    const to = ['--recipient', alice, '--recipient-file', 'recipients'];
    const { status, stderr } = asterism(cwd, ['keys', 'escrow', ...to, '--out', 'escrow.age']);
    assert.equal(status, 0, stderr);
    assert.equal((await stat(join(cwd, 'escrow.age'))).mode & 0o777, 0o600);
    assertNoSecret(await readFile(join(cwd, 'escrow.age'), 'utf8'));
    const original = await secretIn(join(cwd, SECRET_FILE));
    for (const name of ['alice', 'bob']) {
      const opened = execFileSync('age', ['--decrypt', '--identity', name, 'escrow.age'], {
        cwd,
        encoding: 'utf8',
      });
      assert.deepEqual(JSON.parse(opened), original);
      const done = asterism(cwd, [
        'keys',
        'unescrow',
        'escrow.age',
        '--identity',
        name,
        '--out',
        `${name}.json`,
      ]);
      assert.equal(done.status, 0, done.stderr);
      assert.deepEqual(await secretIn(join(cwd, `${name}.json`)), original);
    }
    execFileSync('age', ['--armor', '--recipient', alice, '--output', 'theirs.age', SECRET_FILE], { cwd });
    const theirs = ['keys', 'unescrow', 'theirs.age', '--identity', 'alice', '--out', 'theirs.json'];
    assert.equal(asterism(cwd, theirs).status, 0);
    assert.deepEqual(await secretIn(join(cwd, 'theirs.json')), original);
  });

  test('what was changed, or is for others, does not open', { skip }, async () => {
    const cwd = await workspace();
    const alice = identity(cwd, 'alice');
    identity(cwd, 'mallory');
    asterism(cwd, ['keys', 'escrow', '--recipient', alice, '--out', 'escrow.age']);
    const text = await readFile(join(cwd, 'escrow.age'), 'utf8');
    const lines = text.split('\n');
    const at = lines.length - 4;
    const changed = lines
      .with(
        at,
        lines[at]!.replace(/^./, (c) => (c === 'A' ? 'B' : 'A')),
      )
      .join('\n');
    await writeFile(join(cwd, 'changed.age'), changed);
    await writeFile(join(cwd, 'cut.age'), text.slice(0, 300));
    await writeFile(join(cwd, 'empty.age'), '');
    await writeFile(join(cwd, 'other.json'), '{"key": "AA==", "salt": "AA=="}');
    execFileSync('age', ['--armor', '--recipient', alice, '--output', 'other.age', 'other.json'], { cwd });
    for (const [file, name, code] of [
      ['escrow.age', 'mallory', /ERR_ESCROW/],
      ['changed.age', 'alice', /ERR_ESCROW/],
      ['cut.age', 'alice', /ERR_ESCROW/],
      ['empty.age', 'alice', /ERR_ESCROW/],
      ['nowhere.age', 'alice', /ERR_READ/],
      ['escrow.age', 'nowhere', /ERR_READ/],
      ['escrow.age', 'escrow.age', /ERR_IDENTITY/],
      ['other.age', 'alice', /ERR_MASTER_SECRET/],
    ] as const) {
      const { status, stderr } = asterism(cwd, [
        'keys',
        'unescrow',
        file,
        '--identity',
        name,
        '--out',
        'new.json',
      ]);
      assert.equal(status, 1);
      assert.match(stderr, code);
      assert.doesNotMatch(stderr, /AGE-SECRET-KEY-1[A-Z0-9]/);
      assert.ok(!existsSync(join(cwd, 'new.json')));
    }
    assert.match(
      asterism(cwd, ['keys', 'unescrow', 'escrow.age', '--identity', 'alice']).stderr,
      /ERR_EXISTS/,
    );
    assert.match(
      asterism(cwd, ['keys', 'escrow', '--recipient', alice, '--out', 'cut.age']).stderr,
      /ERR_EXISTS/,
    );
  });

  test('the secret of another cluster is not put into the workspace', { skip }, async () => {
    const cwd = await bare();
    const alice = identity(cwd, 'alice');
    await writeFile(
      join(cwd, 'x.json'),
      JSON.stringify({ key: toBase64(new Uint8Array(32)), salt: toBase64(SALT) }),
    );
    execFileSync('age', ['--armor', '--recipient', alice, '--output', 'x.age', 'x.json'], { cwd });
    assert.match(
      asterism(cwd, ['keys', 'unescrow', 'x.age', '--identity', 'alice']).stderr,
      /ERR_FOREIGN_SECRET/,
    );
    assert.ok(!existsSync(join(cwd, SECRET_FILE)));
  });

  // The X25519 recipient of the age specification's README, with its last letter changed in the second case.
  const EXAMPLE = 'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p';
  for (const [what, recipient] of [
    ['SSH', 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl'],
    ['a damaged one', `${EXAMPLE.slice(0, -1)}q`],
    ['upper case', EXAMPLE.toUpperCase()],
    ['an identity', `AGE-SECRET-KEY-1${'Q'.repeat(58)}`],
    ['post-quantum', `age1pq1${'q'.repeat(55)}`],
    ['a hardware tag', `age1tag1${'q'.repeat(54)}`],
    ['a passphrase', 'correct horse battery staple'],
    ['nothing', ''],
  ] as const) {
    test(`refuses ${what} as a recipient`, async () => {
      const cwd = await workspace();
      const { status, stderr } = asterism(cwd, [
        'keys',
        'escrow',
        '--recipient',
        recipient,
        '--out',
        'x.age',
      ]);
      assert.equal(status, 1);
      assert.match(stderr, /ERR_RECIPIENT/);
      assert.ok(!stderr.includes('QQQQ') && !stderr.includes('battery'));
      assert.ok(!existsSync(join(cwd, 'x.age')));
    });
  }

  test('refuses to encrypt to nobody', async () => {
    const cwd = await workspace();
    assert.equal(asterism(cwd, ['keys', 'escrow', '--out', 'x.age']).status, 1);
    await writeFile(join(cwd, 'none'), '# nobody\n');
    assert.equal(asterism(cwd, ['keys', 'escrow', '--recipient-file', 'none', '--out', 'x.age']).status, 1);
    assert.ok(!existsSync(join(cwd, 'x.age')));
  });
});
