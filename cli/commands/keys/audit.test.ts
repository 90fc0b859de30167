// Runs the real command as a child process.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { AuditLog } from '@asterism/runtime/audit-log';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';

const ASTERISM = join(import.meta.dirname, '../../../asterism');

describe('keys audit of files', () => {
  let folder: TemporaryFolder;
  let log: string;

  before(async () => {
    folder = await temporaryFolder();
    log = folder.file('key-service.log');
    const audit = await AuditLog.open(log);
    const disk = '00000000-0000-4000-8000-000000000001';
    for (const [outcome, onBehalfOf] of [
      ['granted', 'worker-0'],
      ['refused', 'worker-1'],
      ['granted', 'worker-1'],
    ] as const)
      await audit.append({ event: 'get-data-key', outcome, keyId: disk, onBehalfOf });
    // What a node says of itself may be an attack on the terminal, or claim to be another's.
    await audit.append({
      event: 'x\u001b[2J',
      outcome: 'granted',
      writtenBy: 'somebody-else',
      log: 'other.log',
    });
    await audit.close();
  });
  after(() => folder[Symbol.asyncDispose]());

  const audit = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(ASTERISM, ['keys', 'audit', ...args], {
      cwd: folder.path,
      encoding: 'utf8',
      timeout: 60_000,
    });
    return { status, stdout, stderr };
  };
  const tampered = async (name: string, change: (text: string) => string | Buffer) => {
    await writeFile(folder.file(name), change(await readFile(log, 'utf8')));
    return folder.file(name);
  };

  test('a whole log: its lines, its head, and exit code 0', () => {
    const { status, stdout } = audit('--file', log);
    assert.equal(status, 0);
    assert.match(stdout, /get-data-key refused keyId=.* onBehalfOf=worker-1/);
    assert.match(stdout, /key-service\.log: 4 lines, chain whole, head [0-9a-f]{64}/);
    assert.ok(!stdout.includes('\u001b'));
    const { lines, logs } = JSON.parse(audit('--file', log, '-o', 'json').stdout);
    assert.deepEqual([lines.length, logs.length], [4, 1]);
    assert.deepEqual([lines[3].writtenBy, lines[3].log], ['', 'key-service.log']);
  });

  test('filters', () => {
    const count = (...args: string[]) =>
      JSON.parse(audit('--file', log, '-o', 'json', ...args).stdout).lines.length;
    assert.equal(count('--outcome', 'granted'), 3);
    assert.equal(count('--node', 'worker-1'), 2);
    assert.equal(count('--key', '00000000-0000-4000-8000-000000000001'), 3);
    assert.equal(count('--key', '00000000-0000-4000-8000-00000000000'), 0);
    assert.equal(count('--last', '1'), 1);
    assert.equal(count('--since', '2999-01-01T00:00:00Z'), 0);
    assert.equal(audit('--file', log, '--outcome', 'perhaps').status, 1);
  });

  test('a log that was changed: exit code 2, and none of its lines', async () => {
    const changes: [string, (text: string) => string | Buffer][] = [
      ['a word', (text) => text.replace('worker-1', 'worker-2')],
      ['a line taken out', (text) => text.split('\n').toSpliced(1, 1).join('\n')],
      [
        'two lines in another order',
        ([...text]) =>
          text
            .join('')
            .split('\n')
            .toSpliced(0, 2, ...text.join('').split('\n').slice(0, 2).reverse())
            .join('\n'),
      ],
      ['no JSON', () => 'granted\n'],
      ['a line without end', () => 'x'.repeat(200_000)],
      ['bytes that are no text', () => Buffer.from([0xff, 0xfe, 0x0a])],
    ];
    for (const [what, change] of changes) {
      const file = await tampered('tampered.log', change);
      const { status, stdout } = audit('--file', file, '-o', 'json');
      assert.equal(status, 2, what);
      const { lines, logs } = JSON.parse(stdout);
      assert.deepEqual([lines, logs.length], [[], 1], what);
      assert.match(logs[0].error, /line \d+ /, what);
      assert.match(audit('--file', file).stdout, /NOT TO BE BELIEVED/);
    }
  });

  test('of several files the whole ones are read, and the exit code is that of the worst', async () => {
    const file = await tampered('tampered.log', (text) => text.replace('granted', 'refused'));
    const { status, stdout } = audit('--file', log, '--file', file, '-o', 'json');
    assert.equal(status, 2);
    assert.equal(JSON.parse(stdout).lines.length, 4);
  });

  test('a file that is not there, or no file', () => {
    for (const file of [folder.file('missing.log'), folder.path]) {
      const { status, stdout, stderr } = audit('--file', file);
      assert.equal(status, 1);
      assert.equal(stdout, '');
      assert.ok(stderr.includes(file), stderr);
      assert.doesNotMatch(stderr, /unexpected|at Object|node:internal/);
    }
  });
});
