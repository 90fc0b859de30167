import assert from 'node:assert/strict';
import { appendFile, readFile, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { AuditLog, verifyAuditLog } from './audit-log.ts';

const event = (n: number) => ({ event: 'test', outcome: 'granted' as const, n });
const broken = { code: 'ERR_AUDIT_LOG' };

async function withLines(path: string, count: number): Promise<string[]> {
  const log = await AuditLog.open(path);
  for (let n = 0; n < count; n++) await log.append(event(n));
  await log.close();
  return (await readFile(path, 'utf8')).trimEnd().split('\n');
}

const lines = (all: readonly string[]) => `${all.join('\n')}\n`;

for (const [what, change, where] of [
  ['a changed value', (all: string[]) => all.with(1, all[1]!.replace('"n":1', '"n":7')), 2],
  ['a line taken out', (all: string[]) => all.toSpliced(1, 1), 2],
  ['two lines swapped', (all: string[]) => [all[0]!, all[2]!, all[1]!, all[3]!], 2],
  ['a line twice', (all: string[]) => all.toSpliced(1, 0, all[0]!), 2],
  ['another first line', (all: string[]) => all.slice(1), 1],
  ['a line of garbage', (all: string[]) => all.with(3, 'garbage'), 4],
  ['null', (all: string[]) => all.with(3, 'null'), 4],
  ['an empty line', (all: string[]) => all.toSpliced(2, 0, ''), 3],
  ['something after the hash', (all: string[]) => all.with(3, `${all[3]!.slice(0, -1)} }`), 4],
] as const) {
  test(`${what} breaks the chain: it is found, and nothing is appended`, async () => {
    await using folder = await temporaryFolder();
    const path = folder.file('audit.log');
    const changed = lines(change(await withLines(path, 4)));
    await writeFile(path, changed);
    const message = new RegExp(`line ${where} `);
    await assert.rejects(verifyAuditLog(path), { ...broken, message });
    await assert.rejects(AuditLog.open(path), { ...broken, message });
    assert.equal(await readFile(path, 'utf8'), changed);
  });
}

test('a line without end is refused before memory is full of it', async () => {
  await using folder = await temporaryFolder();
  const path = folder.file('audit.log');
  await writeFile(path, 'x'.repeat(200_000));
  await assert.rejects(AuditLog.open(path), { ...broken, message: /too long/ });
});

test('the log is not opened through a symbolic link', async () => {
  await using folder = await temporaryFolder();
  await writeFile(folder.file('elsewhere'), '');
  await symlink(folder.file('elsewhere'), folder.file('audit.log'));
  await assert.rejects(AuditLog.open(folder.file('audit.log')), { code: 'ELOOP' });
});

test('the chain goes on after a restart; the file is for its owner alone', async () => {
  await using folder = await temporaryFolder();
  const path = folder.file('deep/er/audit.log');
  await withLines(path, 3);
  await withLines(path, 2);
  const { lines: count, hash } = await verifyAuditLog(path);
  assert.equal(count, 5);
  const log = await AuditLog.open(path);
  assert.deepEqual(log.head, { lines: 5, hash });
  await log.close();
  assert.equal((await stat(path)).mode & 0o777, 0o600);
});

test('a line that a crash cut off is cut away and recorded', async () => {
  await using folder = await temporaryFolder();
  const path = folder.file('audit.log');
  const all = await withLines(path, 3);
  await truncate(path, (await stat(path)).size - 5);
  assert.deepEqual((await verifyAuditLog(path)).lines, 2);
  assert.equal((await verifyAuditLog(path)).lost, all[2]!.length + 1 - 5);
  await withLines(path, 1);
  const after = (await readFile(path, 'utf8')).trimEnd().split('\n');
  assert.equal(after.length, 4);
  assert.equal(JSON.parse(after[2]!).event, 'audit-log-tail-lost');
  assert.equal(JSON.parse(after[2]!).bytes, all[2]!.length + 1 - 5);
  assert.equal((await verifyAuditLog(path)).lines, 4);
});

test('lines asked for at once are whole and in order when their promises resolve', async () => {
  await using folder = await temporaryFolder();
  const path = folder.file('audit.log');
  const log = await AuditLog.open(path);
  await Promise.all(
    Array.from({ length: 200 }, async (_, n) => {
      await log.append({ ...event(n), text: 'ä\n"}{' });
      assert.ok((await readFile(path, 'utf8')).includes(`"n":${n},`));
    }),
  );
  await log.close();
  assert.equal((await verifyAuditLog(path)).lines, 200);
});

test('another writer is noticed: from then on nothing is recorded, so nothing granted', async () => {
  await using folder = await temporaryFolder();
  const path = folder.file('audit.log');
  const log = await AuditLog.open(path);
  await log.append(event(0));
  await appendFile(path, 'x');
  await assert.rejects(log.append(event(1)), broken);
  await assert.rejects(log.append(event(2)), broken);
  assert.equal(log.failure?.code, 'ERR_AUDIT_LOG');
  await log.close();
});

test('a file that cannot be written refuses, and goes on refusing', async () => {
  await using folder = await temporaryFolder();
  const log = await AuditLog.open(folder.file('audit.log'));
  await log.close();
  await assert.rejects(log.append(event(0)), broken);
  await assert.rejects(log.append(event(1)), broken);
});
