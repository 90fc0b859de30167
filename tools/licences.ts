// Holds that every package that is shipped has a permissive licence, and that each direct dependency, shipped or
// not, has a line with its reason in docs/dependencies.md. Exits 1 and names what is wrong.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const PERMISSIVE = new Set([
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'ISC',
  'MIT',
  'MIT-0',
  'PSF-2.0',
  'Python-2.0',
  'Unlicense',
  'Zlib',
]);

interface LockEntry {
  readonly version?: string;
  readonly license?: string;
  readonly dev?: boolean;
  readonly link?: boolean;
}

const root = join(import.meta.dirname, '..');
const problems: string[] = [];
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const manifest = JSON.parse(read('package.json'));
const lock: Record<string, LockEntry> = JSON.parse(read('package-lock.json')).packages;

/** SPDX expressions as npm packages write them: one id, or ids joined by one kind of operator. */
function isPermissive(expression: string): boolean {
  const bare = expression.replace(/^\((.*)\)$/, '$1');
  if (bare.includes(' OR ')) return bare.split(' OR ').some(isPermissive);
  if (bare.includes(' AND ')) return bare.split(' AND ').every(isPermissive);
  return PERMISSIVE.has(bare.trim());
}

let shipped = 0;
for (const [path, entry] of Object.entries(lock)) {
  if (!path.includes('node_modules/') || entry.link || entry.dev) continue;
  shipped += 1;
  const licence = entry.license ?? '';
  if (!isPermissive(licence)) problems.push(`${path}: licence '${licence}' is not among the permissive ones`);
}

const page = existsSync(join(root, 'docs/dependencies.md')) ? read('docs/dependencies.md') : '';
const reasons = new Map<string, string>();
for (const match of page.matchAll(/^\|\s*`([^`]+)`\s*\|([^\n]*)\|\s*$/gm)) {
  reasons.set(match[1] ?? '', (match[2] ?? '').split('|').at(-1)?.trim() ?? '');
}
const direct = Object.keys({
  ...manifest.dependencies,
  ...manifest.devDependencies,
  ...manifest.optionalDependencies,
});
for (const name of direct) {
  const reason = reasons.get(name) ?? '';
  if (reason.length < 10) problems.push(`${name}: no reason in docs/dependencies.md`);
}
// Programs of the operating system are listed there too, so only what looks like an npm package can be stale.
const npmSection = page.split(/^## /m).find((section) => section.startsWith('npm packages')) ?? '';
for (const match of npmSection.matchAll(/^\|\s*`([^`]+)`/gm)) {
  const name = match[1] ?? '';
  if (!direct.includes(name))
    problems.push(`${name}: in docs/dependencies.md, but no longer in package.json`);
}

for (const problem of problems) console.error(problem);
console.log(
  `licences: ${shipped} shipped packages, ${direct.length} direct dependencies, ${problems.length} problems`,
);
process.exitCode = problems.length === 0 ? 0 : 1;
