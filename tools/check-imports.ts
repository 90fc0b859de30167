// Holds the import rules of ARCHITECTURE.md over the whole tree. Exits 1 and names each breach.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Breach, breachesOf, type Declared, sourceFiles } from './imports.ts';

const root = join(import.meta.dirname, '..');

function declared(): Declared {
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  const workspaces = new Map<string, string>();
  for (const [path, entry] of Object.entries<{ link?: boolean; resolved?: string }>(lock.packages)) {
    if (entry.link && entry.resolved !== undefined) {
      workspaces.set(path.slice('node_modules/'.length), entry.resolved);
    }
  }
  return {
    dependencies: new Set(Object.keys(manifest.dependencies ?? {})),
    devDependencies: new Set(Object.keys(manifest.devDependencies ?? {})),
    workspaces,
  };
}

const packages = declared();
const breaches: Breach[] = [];
const files = sourceFiles(root);
for (const file of files) {
  const source = readFileSync(join(root, file), 'utf8');
  breaches.push(...breachesOf(file, source, packages, (path) => existsSync(join(root, path))));
}
for (const { file, line, specifier, why } of breaches) {
  console.error(`${file}:${line}: '${specifier}': ${why}`);
}
console.log(`imports: ${files.length} files, ${breaches.length} breaches`);
process.exitCode = breaches.length === 0 ? 0 : 1;
