import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';

/** Runs a service whose `start` is the given code; its lines are what it logged. */
async function* service(code: string): AsyncGenerator<Record<string, unknown>, number | null> {
  await using folder = await temporaryFolder();
  const main = folder.file('main.ts');
  await writeFile(
    main,
    `import { runService } from '${join(import.meta.dirname, 'run-service.ts')}';
     await runService({ name: 'probe', healthPort: 0 }, async ({ log, registry }) => { ${code} });`,
  );
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 30_000,
  });
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve));
  for await (const line of createInterface({ input: child.stdout })) yield { ...JSON.parse(line), child };
  return await closed;
}

async function life(code: string, signal?: NodeJS.Signals) {
  const lines: Record<string, unknown>[] = [];
  const run = service(code);
  for (;;) {
    const { value, done } = await run.next();
    if (done) return { lines, exit: value };
    lines.push(value);
    if (value.msg === 'serving' && signal !== undefined)
      (value.child as { kill(s: string): void }).kill(signal);
  }
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal}: stop is awaited, exit 0`, async () => {
    const { lines, exit } = await life(
      `setInterval(() => {}, 1000);
       return { stop: async () => { await new Promise((r) => setTimeout(r, 100)); log.info('drained'); } };`,
      signal,
    );
    assert.equal(exit, 0);
    assert.deepEqual(
      lines.map(({ msg }) => msg),
      ['serving', 'stopping', 'drained'],
    );
    assert.ok(lines.every(({ name }) => name === 'probe'));
  });
}

test('a service that cannot start says why and exits with 1', async () => {
  const { lines, exit } = await life(`throw new Error('no disk');`);
  assert.equal(exit, 1);
  assert.equal((lines[0]!.err as { message: string }).message, 'no disk');
  assert.equal(lines[0]!.level, 60);
});

test('an error that nobody caught ends it, in JSON', async () => {
  const { lines, exit } = await life(
    `setTimeout(() => Promise.reject(new Error('lost')), 10); return { stop: async () => {} };`,
  );
  assert.equal(exit, 1);
  assert.equal((lines.at(-1)!.err as { message: string }).message, 'lost');
});

test('a stop that fails exits with 1', async () => {
  const { exit } = await life(
    `setInterval(() => {}, 1000); return { stop: async () => { throw new Error('stuck'); } };`,
    'SIGTERM',
  );
  assert.equal(exit, 1);
});
