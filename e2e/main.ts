// npm run e2e [-- SCENARIO ...] [--keep]: runs scenarios on real clusters, all of them or those named. With --keep the
// clusters stay; npm run e2e:clean removes them, and those of runs that were killed.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const scenarios = readdirSync(import.meta.dirname, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name);
const args = process.argv.slice(2);
const chosen = args.filter((arg) => arg !== '--keep');
const unknown = chosen.filter((name) => !scenarios.includes(name));
if (unknown.length > 0) {
  console.error(`e2e: no scenario ${unknown.join(', ')}; there are: ${scenarios.join(', ')}`);
  process.exit(1);
}
const { status } = spawnSync(
  join(root, 'tools/test'),
  ['--no-check', ...(chosen.length === 0 ? scenarios : chosen).map((name) => `e2e/${name}/`)],
  {
    stdio: 'inherit',
    env: { ...process.env, ...(args.includes('--keep') ? { ASTERISM_E2E_KEEP: '1' } : {}) },
  },
);
process.exitCode = status ?? 1;
