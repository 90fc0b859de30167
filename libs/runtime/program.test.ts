import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { inspect } from 'node:util';
import { createLogger } from './logger.ts';
import { ProgramError, runChecked, runProgram } from './program.ts';

const SECRET = 'client-key-data: TOP-SECRET';
const LONG = { timeoutMs: 30_000 };

const shell = (script: string, options: Partial<Parameters<typeof runProgram>[2]> = {}) =>
  runProgram('sh', ['-c', script], { ...LONG, ...options });

async function errorOf(run: Promise<unknown>): Promise<ProgramError> {
  const error = await run.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof ProgramError, String(error));
  return error;
}

/** The process that a script's `$!` has named, and all that it left, are gone or at their end. */
async function isGone(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  return stat === undefined || /\) [ZX] /.test(stat);
}

describe('what a program printed', () => {
  it('is not in a log line of its error, nor where an error is inspected', async () => {
    const lines: string[] = [];
    const log = createLogger({
      name: 'test',
      level: 'info',
      destination: { write: (line) => lines.push(line) },
    });
    const err = await errorOf(shell(`echo '${SECRET}'; sleep 30`, { timeoutMs: 300 }));
    assert.equal(err.result?.stdout, `${SECRET}\n`);
    log.error({ err }, 'failed');
    log.error(err);
    log.error({ err: new Error('outer', { cause: err }) });
    assert.equal(lines.length, 3);
    for (const text of [...lines, inspect(err), JSON.stringify(err), JSON.stringify({ ...err })])
      assert.doesNotMatch(text, /TOP-SECRET/);
  });

  it('is in no error at all where it is secret', async () => {
    for (const script of [
      `echo '${SECRET}'; exit 3`,
      `echo '${SECRET}' >&2; exit 3`,
      `echo '${SECRET}'; kill -9 $$`,
      `echo '${SECRET}'; sleep 30`,
    ]) {
      const options = { timeoutMs: 2000, secretOutput: true };
      const error = await errorOf(runChecked('sh', ['-c', 'eval "$S"'], { ...options, env: { S: script } }));
      assert.equal(error.result, undefined);
      assert.doesNotMatch(`${error.message} ${error.stack} ${inspect(error)}`, /TOP-SECRET/);
    }
  });

  it('says why it failed where it is not: standard error, else standard output', async () => {
    await assert.rejects(runChecked('sh', ['-c', 'echo a; echo b >&2; exit 3'], LONG), {
      code: 'ERR_PROGRAM_FAILED',
      message: /exited with 3: b$/,
    });
    await assert.rejects(runChecked('sh', ['-c', 'echo a; exit 3'], LONG), { message: /exited with 3: a$/ });
  });

  it('is kept up to the bound, its end', async () => {
    const { stdout } = await shell('seq 1 100000', { maxOutputBytes: 14 });
    assert.equal(stdout, '\n99999\n100000\n');
  });

  it('is whole when it is more than a pipe holds', async () => {
    const { stdout } = await shell('seq 1 100000');
    assert.equal(stdout.split('\n').length, 100_001);
  });
});

describe('the end of a program', () => {
  // setsid: outside of the process group, so that no kill of the group reaches it. Its pid is told when that is so.
  const OUTLIVES = "exec 3>&1; echo $(setsid sh -c 'echo $$; exec sleep 25 >&3 2>&3' &)";

  it('is not waited for where a descendant outside of the group holds the output: time-out', async () => {
    const error = await errorOf(shell(`${OUTLIVES}; exec sleep 25`, { timeoutMs: 2000 }));
    assert.equal(error.code, 'ERR_PROGRAM_TIMEOUT');
    const outlives = Number(error.result?.stdout);
    // Still there, so it was not its end that ended the wait.
    assert.equal(await isGone(outlives), false);
    process.kill(outlives);
  });

  it('is not waited for where a descendant outside of the group holds the output: abort', async () => {
    const caller = new AbortController();
    const error = await errorOf(
      shell(`${OUTLIVES}; exec sleep 25`, { signal: caller.signal, onLine: () => caller.abort() }),
    );
    assert.equal(error.code, 'ERR_PROGRAM_ABORTED');
    const outlives = Number(error.result?.stdout);
    assert.equal(await isGone(outlives), false);
    process.kill(outlives);
  });

  it('is not waited for where a descendant outside of the group holds the output: exit', async () => {
    const { code, stdout } = await shell(`${OUTLIVES}; exit 7`, { timeoutMs: 15_000 });
    assert.equal(code, 7);
    const outlives = Number(stdout);
    assert.equal(await isGone(outlives), false);
    process.kill(outlives);
  });

  it('takes the children with it at the time-out', async () => {
    const error = await errorOf(shell('sleep 25 & echo $!; wait', { timeoutMs: 300 }));
    const child = Number(error.result?.stdout);
    while (!(await isGone(child))) await new Promise((resolve) => setTimeout(resolve, 20));
  });

  it('by a signal is an error', async () => {
    assert.equal((await errorOf(shell('kill -TERM $$'))).code, 'ERR_PROGRAM_SIGNAL');
  });

  it('comes before its start where the caller has given up, or it is not there, or its arguments are too many', async () => {
    assert.equal((await errorOf(shell('true', { signal: AbortSignal.abort() }))).code, 'ERR_PROGRAM_ABORTED');
    const missing = await errorOf(runProgram('/nonexistent', [], LONG));
    assert.equal(missing.code, 'ERR_PROGRAM_START');
    const tooLong = await errorOf(runProgram('true', ['x'.repeat(4 << 20)], LONG));
    assert.equal(tooLong.code, 'ERR_PROGRAM_START');
  });

  it('does not depend on whether it reads its input', async () => {
    assert.equal((await shell('exit 4', { stdin: new Uint8Array(1 << 20) })).code, 4);
    const { stdout } = await shell('wc -c', { stdin: new Uint8Array(1 << 20) });
    assert.equal(stdout.trim(), String(1 << 20));
  });
});
