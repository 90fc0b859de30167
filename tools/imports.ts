import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';

/** One import that breaks a rule of ARCHITECTURE.md. */
export interface Breach {
  readonly file: string;
  readonly line: number;
  readonly specifier: string;
  readonly why: string;
}

export interface ImportSite {
  readonly specifier: string;
  readonly line: number;
}

/** Folders whose members are packages of their own; other top folders are one package each. */
const NESTED = ['libs', 'services', 'providers'];

/** Which kinds of package a kind may import (rule 1: data walks in one direction). */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  libs: ['libs'],
  services: ['libs'],
  // A provider starts what image/ built, and measures what image/ predicts.
  providers: ['libs', 'image'],
  deploy: ['libs'],
  image: ['libs', 'deploy'],
  cli: ['libs', 'providers', 'image', 'deploy'],
  testkit: ['libs', 'services', 'providers', 'deploy'],
  tools: ['libs', 'cli', 'tools', 'testkit'],
  bench: ['libs', 'services', 'providers', 'cli', 'image', 'deploy', 'testkit'],
  e2e: ['libs', 'services', 'providers', 'cli', 'image', 'deploy', 'testkit'],
};

/** Packages that are not shipped in a service: their code may use development dependencies. */
const WITH_DEV_DEPENDENCIES = ['image', 'testkit', 'tools', 'bench', 'e2e'];

/** Folders whose members may not know each other (rule 1: variants, and their likes). */
const SIBLINGS = [
  'libs/attestation/variants',
  'libs/kms/backends',
  'libs/kms/stores',
  'libs/metadata/providers',
];

/** Rule 4: this code verifies in a browser too, so it uses WebCrypto and Uint8Array only. */
const BROWSER_SAFE = ['libs/bytes', 'libs/errors', 'libs/eventlog', 'libs/attestation', 'libs/tpm'];

/** The halves of those packages that talk to a TPM or issue evidence, and so run on Node alone. */
const NODE_ONLY = [
  /^libs\/attestation\/(?:.*\/)?issue[^/]*\.ts$/,
  /^libs\/tpm\/transports?(?:\/|-|\.ts$)/,
  /^libs\/tpm\/(?:with-tpm|turns|deadline|tpm|ak|machine)[^/]*\.ts$/,
];

/** Third-party packages that run in a browser. */
const BROWSER_PACKAGES = ['@bufbuild/protobuf', '@peculiar/x509'];

export function isTest(file: string): boolean {
  return /\.(?:test|fixture|fuzz|bench)\.ts$|\/(?:testdata|fixtures)\//.test(file);
}

/** Whether `file` must run in a browser. */
export function isBrowserSafe(file: string): boolean {
  return (
    BROWSER_SAFE.some((folder) => file.startsWith(`${folder}/`)) &&
    !isTest(file) &&
    !NODE_ONLY.some((pattern) => pattern.test(file))
  );
}

/** `libs/tpm` of `libs/tpm/marshal/x.ts`; `cli` of `cli/commands/init.ts`. */
export function packageOf(file: string): string {
  const [top = '', second = ''] = file.split('/');
  return NESTED.includes(top) ? `${top}/${second}` : top;
}

/** All import and export-from specifiers, type imports and dynamic imports of a literal among them. */
export function importSites(source: string): ImportSite[] {
  // Comments become blanks of the same length, so that lines stay; strings are left alone.
  const code = source.replace(/\/\*[\s\S]*?\*\/|(?<=^|[\s;{}(),])\/\/[^\n]*/g, (comment) =>
    comment.replace(/[^\n]/g, ' '),
  );
  const sites: ImportSite[] = [];
  const pattern =
    /(?:^|[\n;])[ \t]*(?:import|export)\s[^'"`;]*?\bfrom\s*(['"])([^'"\n]+)\1|(?:^|[\n;])[ \t]*import\s*(['"])([^'"\n]+)\3|\bimport\s*\(\s*(['"])([^'"\n]+)\5|\brequire\s*\(\s*(['"])([^'"\n]+)\7/g;
  for (const match of code.matchAll(pattern)) {
    const specifier = match[2] ?? match[4] ?? match[6] ?? match[8];
    if (specifier === undefined) continue;
    const end = (match.index ?? 0) + match[0].length;
    sites.push({ specifier, line: code.slice(0, end).split('\n').length });
  }
  return sites;
}

export interface Declared {
  readonly dependencies: ReadonlySet<string>;
  readonly devDependencies: ReadonlySet<string>;
  /** Folder of each workspace package by its name, e.g. `@asterism/tpm` -> `libs/tpm`. */
  readonly workspaces: ReadonlyMap<string, string>;
}

/**
 * Judges the imports of one file.
 *
 * @param file path from the repository's root, with `/`
 * @param exists whether a path from the root is a file
 */
export function breachesOf(
  file: string,
  source: string,
  declared: Declared,
  exists: (path: string) => boolean = existsSync,
): Breach[] {
  const found: Breach[] = [];
  const own = packageOf(file);
  const kind = file.split('/')[0] ?? '';
  const allowed = ARROWS[kind] ?? [];
  const test = isTest(file);
  const browser = isBrowserSafe(file);

  for (const { specifier, line } of importSites(source)) {
    const breach = (why: string) => found.push({ file, line, specifier, why });
    if (specifier.startsWith('node:')) {
      if (browser) breach('this file verifies in a browser too: no node: imports (rule 4)');
      continue;
    }
    const target = resolve(file, specifier, declared);
    if (target === undefined) {
      judgeThirdParty(specifier, kind, test, browser, declared, breach);
      continue;
    }
    if (!exists(target)) breach(`${target} does not exist`);
    const targetPackage = packageOf(target);
    const targetKind = target.split('/')[0] ?? '';
    if (specifier.startsWith('.') && targetPackage !== own) {
      breach('a relative path leaves its package: import by package name');
    }
    if (targetPackage !== own) {
      if (targetKind === 'testkit') {
        if (!test && !allowed.includes('testkit')) breach('testkit is for tests, bench and e2e only');
      } else if (kind === 'services' && targetKind === 'services') {
        breach('services never import each other: they talk gRPC (rule 1)');
      } else if (!allowed.includes(targetKind)) {
        breach(`${kind} never imports ${targetKind} (rule 1)`);
      }
    }
    if (isTest(target) && !test) breach('only tests import test code');
    for (const folder of SIBLINGS) {
      const [mine, theirs] = [memberOf(file, folder), memberOf(target, folder)];
      if (mine !== undefined && theirs !== undefined && mine !== theirs) {
        breach(`members of ${folder} never import each other (rule 1)`);
      }
    }
    if (browser && !isBrowserSafe(target)) {
      breach(`this file verifies in a browser too, ${target} does not (rule 4)`);
    }
  }
  return found;
}

function judgeThirdParty(
  specifier: string,
  kind: string,
  test: boolean,
  browser: boolean,
  declared: Declared,
  breach: (why: string) => void,
): void {
  const name = specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
  if (name.startsWith('@asterism/')) {
    breach('no such workspace package, or no path in it (there are no barrel files)');
    return;
  }
  const dev = declared.devDependencies.has(name) && (test || WITH_DEV_DEPENDENCIES.includes(kind));
  if (!declared.dependencies.has(name) && !dev)
    breach(`${name} is not declared for this code in package.json`);
  if (browser && !BROWSER_PACKAGES.includes(name))
    breach(`${name} is not known to run in a browser (rule 4)`);
}

function memberOf(file: string, folder: string): string | undefined {
  if (!file.startsWith(`${folder}/`)) return undefined;
  const rest = file.slice(folder.length + 1).split('/');
  return rest.length > 1 ? rest[0] : undefined;
}

/** Path from the root of what a specifier means; undefined for third-party packages. */
function resolve(file: string, specifier: string, declared: Declared): string | undefined {
  if (specifier.startsWith('.')) return normalize(join(dirname(file), specifier));
  const [scope = '', name = '', ...rest] = specifier.split('/');
  const folder = declared.workspaces.get(`${scope}/${name}`);
  return folder === undefined || rest.length === 0 ? undefined : `${folder}/${rest.join('/')}.ts`;
}

/** Every TypeScript file under the given top folders, as paths from `root`. */
export function sourceFiles(root: string, folders: readonly string[] = Object.keys(ARROWS)): string[] {
  const files: string[] = [];
  const walk = (folder: string) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.name === 'node_modules' || entry.name === 'dist' || entry.name.startsWith('.')) continue;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) walk(path);
      else if (entry.name.endsWith('.ts')) files.push(relative(root, path));
    }
  };
  for (const folder of folders) if (existsSync(join(root, folder))) walk(join(root, folder));
  return files.sort();
}
