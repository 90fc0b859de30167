// Holds that each claim of SECURITY.md names the tests that show it: a file, and after it names of tests in that file.
// Exits 1 and names the claims that do not.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const text = readFileSync(join(root, 'SECURITY.md'), 'utf8');
const section = /^## Claims$([\s\S]*?)^## /m.exec(text)?.[1] ?? '';
const rows = section
  .split('\n')
  .map((line) => /^\| (.+?) \| (.+) \|$/.exec(line))
  .filter((row) => row !== null && row[1] !== 'claim');
const problems: string[] = [];
if (rows.length === 0) problems.push('SECURITY.md has no claims');

let tests = 0;
for (const row of rows) {
  const [, claim = '', shown = ''] = row ?? [];
  const bad = (why: string) => problems.push(`${claim.slice(0, 60)}...: ${why}`);
  const files = [...shown.matchAll(/`([^`]+\.test\.ts)`((?:,? ?"[^"]+")*)/g)];
  if (files.length === 0) bad('names no test');
  for (const [, file = '', quoted = ''] of files) {
    const source = existsSync(join(root, file)) ? readFileSync(join(root, file), 'utf8') : undefined;
    if (source === undefined) {
      bad(`there is no ${file}`);
      continue;
    }
    const names = [...quoted.matchAll(/"([^"]+)"/g)].map(([, name = '']) => name);
    if (names.length === 0) bad(`names no test of ${file}`);
    for (const name of names) if (!source.includes(name)) bad(`${file} has no test "${name}"`);
    tests += names.length;
  }
}
for (const problem of problems) console.error(problem);
console.log(`claims: ${rows.length} claims, ${tests} tests named, ${problems.length} problems`);
process.exitCode = problems.length === 0 ? 0 : 1;
