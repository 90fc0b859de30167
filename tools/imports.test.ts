import assert from 'node:assert/strict';
import { test } from 'node:test';
import { breachesOf, type Declared, importSites, isBrowserSafe } from './imports.ts';

const declared: Declared = {
  dependencies: new Set(['zod', '@peculiar/x509']),
  devDependencies: new Set(['fast-check']),
  workspaces: new Map([
    ['@asterism/bytes', 'libs/bytes'],
    ['@asterism/tpm', 'libs/tpm'],
    ['@asterism/attestation', 'libs/attestation'],
    ['@asterism/join-service', 'services/join-service'],
    ['@asterism/testkit', 'testkit'],
    ['@asterism/cli', 'cli'],
  ]),
};
const why = (file: string, specifier: string, exists = true) =>
  breachesOf(file, `import { x } from '${specifier}';`, declared, () => exists).map((breach) => breach.why);

for (const [file, specifier, pattern] of [
  ['libs/rpc/a.ts', '@asterism/join-service/service', /libs never imports services/],
  ['libs/rpc/a.ts', '@asterism/cli/main', /libs never imports cli/],
  ['services/key-service/a.ts', '@asterism/join-service/service', /services never import each other/],
  ['services/key-service/a.test.ts', '@asterism/join-service/service', /services never import each other/],
  ['services/key-service/a.ts', '../join-service/service.ts', /relative path leaves its package/],
  ['services/key-service/a.ts', '@asterism/testkit/clock', /testkit is for tests/],
  ['services/key-service/a.ts', '@asterism/bytes', /no path in it/],
  ['services/key-service/a.ts', 'left-pad', /not declared/],
  ['services/key-service/a.ts', 'fast-check', /not declared for this code/],
  ['services/key-service/a.ts', './a.test.ts', /only tests import test code/],
  ['libs/attestation/variants/a/verify.ts', '../b/verify.ts', /never import each other/],
  ['libs/attestation/variants/a/verify.ts', 'node:crypto', /no node: imports/],
  ['libs/attestation/variants/a/verify.ts', './issue.ts', /does not \(rule 4\)/],
  ['libs/attestation/variants/a/verify.ts', 'zod', /not known to run in a browser/],
] as const) {
  test(`${file} may not import ${specifier}`, () => {
    assert.match(why(file, specifier).join('\n'), pattern);
  });
}

test('a path that does not exist is named', () => {
  assert.match(why('libs/rpc/a.ts', './gone.ts', false).join('\n'), /libs\/rpc\/gone.ts does not exist/);
});

test('what the rules allow passes', () => {
  assert.deepEqual(why('libs/rpc/a.ts', '@asterism/bytes/reader'), []);
  assert.deepEqual(why('libs/rpc/a.test.ts', '@asterism/testkit/clock'), []);
  assert.deepEqual(why('libs/rpc/a.test.ts', 'fast-check'), []);
  assert.deepEqual(why('e2e/a.test.ts', '@asterism/join-service/service'), []);
  assert.deepEqual(why('libs/attestation/variants/a/issue.ts', 'node:crypto'), []);
  assert.deepEqual(why('libs/attestation/variants/a/verify.ts', '@peculiar/x509'), []);
});

test('every form of import is seen, with its line; comments are not', () => {
  const source = [
    "import a from 'one';",
    "import type { B } from 'two';",
    'import {',
    '  c,',
    "} from 'three';",
    "import 'four';",
    "export * from 'five';",
    // Joined here, so that the check of this very file does not take it for an import.
    `const f = await ${'import'}('six');`,
    "// import g from 'seven';",
    "/* import h from 'eight'; */",
    "const url = 'https://import.example/from';",
  ].join('\n');
  assert.deepEqual(importSites(source), [
    { specifier: 'one', line: 1 },
    { specifier: 'two', line: 2 },
    { specifier: 'three', line: 5 },
    { specifier: 'four', line: 6 },
    { specifier: 'five', line: 7 },
    { specifier: 'six', line: 8 },
  ]);
});

test('the verifying half is browser code, tests and issuers are not', () => {
  assert.equal(isBrowserSafe('libs/bytes/reader.ts'), true);
  assert.equal(isBrowserSafe('libs/attestation/variants/qemu-vtpm/verify.ts'), true);
  assert.equal(isBrowserSafe('libs/attestation/variants/qemu-vtpm/issue.ts'), false);
  assert.equal(isBrowserSafe('libs/tpm/transports/swtpm.ts'), false);
  assert.equal(isBrowserSafe('libs/bytes/reader.test.ts'), false);
  assert.equal(isBrowserSafe('libs/atls/server.ts'), false);
});
