import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Progress } from './progress.ts';

function recorder(isTTY: boolean) {
  const lines: string[] = [];
  const stream = { isTTY, columns: 40, write: (text: string) => lines.push(text) > 0 };
  return { lines, stream: stream as unknown as NodeJS.WriteStream };
}

test('elsewhere than on a terminal a phase is one line, with its time', async () => {
  const { lines, stream } = recorder(false);
  const progress = new Progress(stream);
  const result = await progress.phase('make nodes', async (detail) => {
    detail('one');
    return 42;
  });
  assert.equal(result, 42);
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /^make nodes: done in \d+\.\d s\n$/);
  assert.equal(progress.times[0]?.phase, 'make nodes');
});

test('a phase that fails says so, keeps its time and passes the error on', async () => {
  const { lines, stream } = recorder(false);
  const progress = new Progress(stream);
  await assert.rejects(
    progress.phase('init', async () => {
      throw new Error('boom');
    }),
    /boom/,
  );
  assert.match(lines.join(''), /^init: failed after/);
  assert.equal(progress.times.length, 1);
});

test('what a peer logs can neither move the cursor nor flood the terminal', async (t) => {
  const ci = process.env.CI;
  delete process.env.CI;
  t.after(() => {
    if (ci !== undefined) process.env.CI = ci;
  });
  const { lines, stream } = recorder(true);
  await new Progress(stream).phase('init', async (detail) => {
    detail(`\x1b[2J\x07${'x'.repeat(1000)}\nsecond`);
  });
  for (const line of lines) {
    const shown = line.replace('\r\x1b[2K', '');
    assert.doesNotMatch(shown.replace(/\n$/, ''), /\p{Cc}/u);
    assert.ok(shown.length <= 60);
  }
});
