// Runs the fuzz targets (tools/fuzz --help). An input that breaks one is saved, with the line that feeds it again.
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { FuzzFinding, fuzz, isRefused } from '@asterism/testkit/fuzz';
import { fuzzTargets } from './fuzz-targets.ts';

const USAGE = `tools/fuzz [--seconds N | --runs N] [--seed N] [--input FILE] [PART-OF-A-PATH ...]
  --seconds N   for each target (default 10, unless --runs is given)
  --runs N      inputs for each target
  --seed N      start of the random numbers (default 1): the same seed makes the same inputs
  --input FILE  feeds this file alone`;

const { values, positionals } = parseArgs({
  options: {
    seconds: { type: 'string' },
    runs: { type: 'string' },
    seed: { type: 'string', default: '1' },
    input: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
if (values.help) {
  console.log(USAGE);
  process.exit(0);
}

function number(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  console.error(`tools/fuzz: --${name} ${text} is no whole number\n${USAGE}`);
  process.exit(1);
}

const runs = number('runs', values.runs);
const seconds = number('seconds', values.seconds) ?? (runs === undefined ? 10 : undefined);
const seed = number('seed', values.seed) ?? 1;

const targets = await fuzzTargets(join(import.meta.dirname, '..'), positionals);
if (targets.length === 0) {
  console.error(`tools/fuzz: no *.fuzz.ts file matches ${positionals.join(' ')}`);
  process.exit(1);
}

let findings = 0;
for (const { file, target } of targets) {
  try {
    if (values.input !== undefined) {
      const refused = await isRefused(target, new Uint8Array(readFileSync(values.input)));
      console.log(`${target.name}: ${refused ? 'refused' : 'accepted'}`);
      continue;
    }
    const limits = { seed, ...(runs !== undefined && { runs }), ...(seconds !== undefined && { seconds }) };
    process.stdout.write(`${target.name}: `);
    const result = await fuzz(target, limits);
    console.log(`${result.runs} inputs, ${result.refused} refused, nothing found`);
  } catch (error) {
    if (!(error instanceof FuzzFinding)) throw error;
    findings++;
    const saved = join(mkdtempSync(join(tmpdir(), 'asterism-fuzz-')), 'input');
    writeFileSync(saved, error.input);
    console.error(`${error.message}\n${error.cause instanceof Error ? error.cause.stack : ''}`);
    console.error(`again: tools/fuzz --input ${saved} ${file}`);
  }
}
process.exitCode = findings > 0 ? 1 : 0;
