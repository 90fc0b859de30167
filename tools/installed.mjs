// Exits 0 when node_modules holds every package of package-lock.json in the locked version. Plain JavaScript:
// it runs before anything else of this clone is known to work.
import { readFileSync } from 'node:fs';

const read = (path) => JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')).packages;
const wanted = read('../package-lock.json');
const found = read('../node_modules/.package-lock.json');

const wrong = Object.entries(wanted).filter(([path, entry]) => {
  if (path === '' || entry.link || !path.includes('node_modules/')) return false;
  const there = found[path];
  if (there === undefined) return !entry.optional && !entry.devOptional;
  return there.version !== entry.version || there.integrity !== entry.integrity;
});
for (const [path, entry] of wrong.slice(0, 5)) console.error(`setup: ${path} is not ${entry.version}`);
process.exit(wrong.length === 0 ? 0 : 1);
