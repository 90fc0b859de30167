// Runs the checks and the tests with Node's test runner, several files at a time, and ends with one summary in that
// runner's own form. What was skipped is listed with its reason, so that a green run does not hide it.
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type EventData, run } from 'node:test';
import { spec } from 'node:test/reporters';
import { sourceFiles } from './imports.ts';
import { abandonedScratches, newScratch, removeScratch, removeTestClusters } from './scratch.ts';

/** Much of a test is waiting: for a program to start, a time-out to end. */
const AT_A_TIME = availableParallelism() + 1;
/** Milliseconds that one test may take, and all files of a kind together. */
const UNITS = { perTest: 5 * 60_000, all: 40 * 60_000 };
const SCENARIOS = { perTest: 25 * 60_000, all: 80 * 60_000 };

const root = join(import.meta.dirname, '..');
process.chdir(root);
const args = process.argv.slice(2);
const options = new Set(args.filter((arg) => arg.startsWith('--')));
const parts = args.filter((arg) => !arg.startsWith('--'));
for (const option of options) {
  if (!['--no-check', '--no-e2e'].includes(option)) {
    console.error(`tools/test: no such option: ${option}`);
    process.exit(1);
  }
}

/** Sums over all runs of what the runner counts in one. */
const totals = { tests: 0, suites: 0, passed: 0, failed: 0, cancelled: 0, skipped: 0, todo: 0 };
const skipped: string[] = [];
const failed: string[] = [];

type TestEvent = EventData.TestPass | EventData.TestFail;
const place = (data: TestEvent) =>
  `${data.file === undefined ? '' : `${data.file.slice(root.length + 1)}: `}${data.name}`;

async function runFiles(
  title: string,
  files: readonly string[],
  concurrency: number,
  limits: { perTest: number; all: number },
) {
  if (files.length === 0) return;
  console.log(`\ntest: ${title}: ${files.length} files, ${concurrency} at a time`);
  const stream = run({
    files: [...files],
    concurrency,
    timeout: limits.perTest,
    // The time-out fails a test but does not end its process: a handle left open, or a loop, would hang the whole run.
    forceExit: true,
    signal: AbortSignal.timeout(limits.all),
  });
  stream.on('test:pass', (data) => {
    if (typeof data.skip === 'string' || data.skip === true) {
      skipped.push(`${place(data)}${typeof data.skip === 'string' ? ` (${data.skip})` : ''}`);
    }
  });
  stream.on('test:fail', (data) => {
    if (data.details.error.message !== undefined && data.todo === undefined) failed.push(place(data));
  });
  stream.on('test:summary', (data) => {
    if (data.file !== undefined) return;
    const { counts } = data;
    totals.tests += counts.tests;
    totals.suites += counts.suites;
    totals.passed += counts.passed;
    totals.failed += counts.tests - counts.passed - counts.cancelled - counts.skipped - counts.todo;
    totals.cancelled += counts.cancelled;
    totals.skipped += counts.skipped;
    totals.todo += counts.todo;
  });
  for await (const chunk of stream.compose(new spec())) process.stdout.write(chunk);
}

const started = performance.now();
let checkFailed = false;
if (!options.has('--no-check') && parts.length === 0) {
  checkFailed = spawnSync('tools/check', { stdio: 'inherit' }).status !== 0;
}

const chosen = sourceFiles(root)
  .filter((file) => file.endsWith('.test.ts'))
  // Scenarios that take minutes run when they are named, as `npm run e2e` does.
  .filter((file) => parts.length > 0 || !file.endsWith('.slow.test.ts'))
  .filter((file) => parts.length === 0 || parts.some((part) => file.includes(part)));
const scenarios = chosen.filter((file) => file.startsWith('e2e/'));
const units = chosen.filter((file) => !file.startsWith('e2e/'));
if (chosen.length === 0) {
  console.error(`tools/test: no test file matches ${parts.join(' ')}`);
  process.exit(1);
}

// Tests run the real Kubernetes API server and boot the real node image: both are built once, and taken from the
// cache after that.
for (const command of [
  ['components', 'build'],
  ['image', 'build'],
]) {
  console.log(`\ntest: asterism ${command.join(' ')}`);
  const { status } = spawnSync('./asterism', command, { stdio: 'inherit' });
  if (status !== 0) {
    console.error(`tools/test: asterism ${command.join(' ')} failed; nothing was tested`);
    process.exit(1);
  }
}
if (!removeTestClusters()) failed.push('clusters of tests that were killed could not be removed');
await runFiles('beside the code', units, AT_A_TIME, UNITS);
if (!options.has('--no-e2e') && scenarios.length > 0) {
  // Scenarios share one cluster, which the first one makes (e2e/cluster.ts): one file at a time.
  for (const folder of abandonedScratches()) removeScratch(folder);
  const scratch = newScratch();
  process.env.ASTERISM_E2E_DIR = scratch;
  await runFiles('scenarios on real clusters', scenarios, 1, SCENARIOS);
  if (process.env.ASTERISM_E2E_KEEP === '1')
    console.log(`test: the clusters are kept in ${scratch}; npm run e2e:clean removes them`);
  else if (!removeScratch(scratch)) failed.push(`e2e/: ${scratch} could not be removed`);
}

if (skipped.length > 0) {
  console.log(`\ntest: NOT RUN on this machine (${skipped.length}):`);
  for (const line of skipped) console.log(`  ${line}`);
}
if (failed.length > 0) {
  console.log(`\ntest: FAILED (${failed.length}):`);
  for (const line of failed) console.log(`  ${line}`);
}
if (checkFailed) console.log('\ntest: tools/check FAILED (see the top of this output)');
console.log(
  [
    '',
    `ℹ tests ${totals.tests}`,
    `ℹ suites ${totals.suites}`,
    `ℹ pass ${totals.passed}`,
    `ℹ fail ${totals.failed}`,
    `ℹ cancelled ${totals.cancelled}`,
    `ℹ skipped ${totals.skipped}`,
    `ℹ todo ${totals.todo}`,
    `ℹ duration_ms ${Math.round(performance.now() - started)}`,
  ].join('\n'),
);
process.exitCode = checkFailed || failed.length > 0 || totals.failed > 0 || totals.cancelled > 0 ? 1 : 0;
