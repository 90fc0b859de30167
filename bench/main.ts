// Runs bench/*.bench.ts and prints what they measured.
// npm run bench -- [--quick] [--json FILE] [--list] [NAME ...]
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Bench, Row } from './bench.ts';
import { machineFacts } from './machine.ts';
import { table } from './table.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean' }, json: { type: 'string' }, list: { type: 'boolean' } },
});

const benches: Bench[] = [];
for (const file of readdirSync(import.meta.dirname).sort()) {
  if (file.endsWith('.bench.ts')) benches.push((await import(join(import.meta.dirname, file))).default);
}
const unknown = positionals.filter((name) => !benches.some((bench) => bench.name === name));
if (unknown.length > 0) {
  console.error(`bench: no ${unknown.join(', ')}; there are: ${benches.map(({ name }) => name).join(', ')}`);
  process.exit(1);
}
if (values.list) {
  for (const { name } of benches) console.log(name);
  process.exit(0);
}

const machine = machineFacts();
const results: { name: string; rows: readonly Row[]; error?: string }[] = [];
for (const [key, value] of Object.entries(machine)) console.log(`${key}: ${value}`);
for (const bench of benches) {
  if (positionals.length > 0 && !positionals.includes(bench.name)) continue;
  console.log(`\n## ${bench.name}`);
  try {
    const progress = (message: string) => console.error(`bench: ${bench.name}: ${message}`);
    const rows = await bench.run({ quick: values.quick ?? false, progress });
    results.push({ name: bench.name, rows });
    console.log(table(rows));
  } catch (error) {
    results.push({ name: bench.name, rows: [], error: (error as Error).message });
    console.error(`bench: ${bench.name} could not be measured: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
if (values.json !== undefined)
  writeFileSync(values.json, `${JSON.stringify({ machine, results }, null, 2)}\n`);
