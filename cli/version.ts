import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Root of this clone. */
export const ROOT = join(import.meta.dirname, '..');

/** Version of this release, from package.json. */
export function releaseVersion(): string {
  return JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version;
}

/** What a person asks for who asks for the version. */
export function versionLine(): string {
  return `asterism ${releaseVersion()} (Node ${process.versions.node})`;
}
