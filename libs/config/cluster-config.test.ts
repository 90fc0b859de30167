import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ParseError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { type ClusterConfig, parseClusterConfig } from './cluster-config.ts';
import { renderClusterConfig } from './template.ts';

const example: ClusterConfig = {
  version: 'v1',
  name: 'mini',
  kubernetesVersion: 'v1.37.2',
  image: `sha256:${'ab'.repeat(32)}`,
  provider: { local: { controlPlaneNodes: 1, workerNodes: 1, stateDiskMiB: 256, egress: false } },
  attestation: {
    qemuVtpm: {
      acceptUnauthenticatedTpm: true,
      measurements: {
        4: { expected: '11'.repeat(32), warnOnly: false },
        11: { expected: '22'.repeat(32), warnOnly: false },
        14: { expected: '00'.repeat(32), warnOnly: true },
      },
    },
  },
  kms: { type: 'cluster' },
};
const good = renderClusterConfig(example);

function refusal(text: string): string {
  try {
    parseClusterConfig(text, 'conf');
  } catch (error) {
    assert.ok(error instanceof ParseError, `not a ParseError: ${error}`);
    return error.message;
  }
  assert.fail('accepted');
}

test('an unknown key is refused with its line, its path and the nearest known key', () => {
  const text = good.replace('workerNodes:', 'workerNode:');
  const line = text.split('\n').findIndex((row) => row.includes('workerNode:')) + 1;
  const message = refusal(text);
  assert.match(
    message,
    new RegExp(
      `^conf:${line}: provider\\.local\\.workerNode: unknown key; did you mean 'workerNodes'\\?$`,
      'm',
    ),
  );
});

test('an unknown key that resembles nothing is refused with the keys that are known there', () => {
  assert.match(refusal(`${good}\nhelm: {}\n`), /conf:\d+: helm: unknown key; known here: version, name, /);
});

test('unknown keys deep within measurements are refused', () => {
  const message = refusal(
    good.replace('        warnOnly: true', '        warnOnly: true\n        warnonly: true'),
  );
  assert.match(message, /measurements\.14\.warnonly: unknown key; did you mean 'warnOnly'\?/);
});

for (const key of ['__proto__', 'constructor', 'toString', '<<']) {
  test(`the key ${key} is unknown like any other and changes no prototype`, () => {
    assert.match(refusal(`${good}\n"${key}": {polluted: true}\n`), /unknown key|unrecognized/i);
    assert.equal(({} as { polluted?: boolean }).polluted, undefined);
  });
}

for (const [what, from, to, pattern] of [
  ['a number as name', 'name: mini', 'name: 42', /conf:\d+: name: .*expected string/],
  ['a name of 38 characters', 'name: mini', `name: ${'a'.repeat(38)}`, /at most 37/],
  ['upper case in the name', 'name: mini', 'name: Mini', /lower-case/],
  ['a path as name', 'name: mini', 'name: ../../etc', /lower-case/],
  ['a string as count', 'workerNodes: 1', 'workerNodes: "1"', /workerNodes: .*expected number/],
  ['a fraction as count', 'workerNodes: 1', 'workerNodes: 1.5', /workerNodes: .*expected int/],
  ['no control plane', 'controlPlaneNodes: 1', 'controlPlaneNodes: 0', /controlPlaneNodes: Too small/],
  ['a thousand workers', 'workerNodes: 1', 'workerNodes: 1000', /workerNodes: Too big/],
  ['another schema version', 'version: v1', 'version: v2', /must be 'v1'/],
  ['a vague Kubernetes version', 'v1.37.2', 'v1.37', /a full version/],
  ['a missing section', 'kms:\n', 'x-kms:\n', /^conf: kms: is missing$/m],
  ['a section without content', 'type: cluster', '', /^conf:\d+: kms: is empty$/m],
  ['a missing name', 'name: mini', '# name', /^conf: name: is missing$/m],
  ['a missing version', 'version: v1', '# v', /^conf: version: is missing$/m],
  ['an unknown key service', 'type: cluster', 'type: gcm', /must name a KMS by its type: 'cluster'/],
  ['a key service without its parameters', 'type: cluster', 'type: aws', /kms\.region: is missing$/m],
  ['a short measurement', '11'.repeat(32), '11'.repeat(31), /measurements\.4\.expected: must be 64 hexa/],
  ['a measurement that is no hex', '11'.repeat(32), 'zz'.repeat(32), /must be 64 hexadecimal/],
  ['PCR 24', '      14:', '      24:', /measurements\.24: a PCR index is a number from 0 to 23$/m],
  ['warnOnly as text', '        warnOnly: true', '        warnOnly: "true"', /warnOnly: .*expected boolean/],
  ['no enforced PCR', /warnOnly: false/g, 'warnOnly: true', /at least one PCR must be enforced/],
  [
    'a TPM nobody vouches for',
    'acceptUnauthenticatedTpm: true',
    'acceptUnauthenticatedTpm: false',
    /can forge/,
  ],
  [
    'a KMS that no node reaches',
    'type: cluster',
    'type: gcp\n  projectID: p1-project\n  location: europe\n  keyRing: ring\n  keyName: key',
    /kms\.type is gcp, but nodes .* reach no KMS; set provider\.local\.egress: true$/,
  ],
  ['egress that is no truth value', 'egress: false', 'egress: "no"', /egress: .*expected boolean/],
  ['a duplicate key', 'name: mini', 'name: mini\nname: other', /Map keys must be unique/],
  ['an anchor with its alias', 'name: mini', 'name: &a mini\nimage2: *a', /alias/i],
  ['a tag that makes code', 'name: mini', 'name: !!js/function "x"', /tag/i],
  ['a second document', 'kms:', '---\nkms:', /multiple documents/],
  ['tabs as indentation', '  local:', '\tlocal:', /conf:\d+: /],
] as const) {
  test(`${what} is refused`, () => {
    const text = good.replace(from, to);
    assert.notEqual(text, good);
    assert.match(refusal(text), pattern);
  });
}

test('a YAML bomb is refused at once', () => {
  const levels = Array.from({ length: 20 }, (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i},`.repeat(9)}]`);
  const started = performance.now();
  assert.match(refusal(`a0: &a0 [x]\n${levels.join('\n')}\n`), /alias/i);
  assert.ok(performance.now() - started < 1000);
});

for (const [what, text] of [
  ['brackets', '['.repeat(100_000)],
  ['braces', '{a: '.repeat(50_000)],
  ['dashes', '- '.repeat(100_000)],
  ['indentation', Array.from({ length: 600 }, (_, i) => `${' '.repeat(i)}a:`).join('\n')],
] as const) {
  test(`endless nesting by ${what} is refused at once`, () => {
    const started = performance.now();
    assert.match(refusal(text), /nested deeper|larger than/);
    assert.ok(performance.now() - started < 1000);
  });
}

test('a huge file is refused before it is parsed', () => {
  assert.match(refusal(`# ${'x'.repeat(300_000)}\n${good}`), /larger than 262144 bytes/);
});

for (const text of ['', '\n', '# nothing\n']) {
  test(`a file of ${JSON.stringify(text)} is said to be empty`, () => {
    assert.equal(refusal(text), 'conf: is empty');
  });
}

test('a refusal has no cause: it would be told after it, in the words of the schema library', () => {
  for (const text of ['', 'name: 1', 'a: [', `${good}\nhelm: {}\n`]) {
    assert.throws(
      () => parseClusterConfig(text, 'conf'),
      (error: Error) => error.cause === undefined,
    );
  }
});

for (const text of ['null', '[]', 'mini', '42', '\0', '%YAML 9.9\n---\na: b']) {
  test(`${JSON.stringify(text)} is refused`, () => {
    assert.match(refusal(text), /^conf/);
  });
}

test('every problem is told at once, one a line', () => {
  const lines = refusal(
    good.replace('name: mini', 'name: 1').replace('workerNodes: 1', 'workerNodes: x'),
  ).split('\n');
  assert.equal(lines.length, 2);
});

test('no text makes the parser throw anything but ParseError', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.json()), (text) => {
      try {
        parseClusterConfig(text);
        return false;
      } catch (error) {
        return error instanceof ParseError;
      }
    }),
  );
});

test('a cut or flipped configuration is refused or still valid, never a crash', () => {
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.string({ minLength: 1, maxLength: 3 }), (at, junk) => {
      try {
        parseClusterConfig(good.slice(0, at) + junk + good.slice(at + junk.length));
      } catch (error) {
        assert.ok(error instanceof ParseError);
      }
    }),
  );
});

test('a KMS outside the cluster is accepted where nodes reach it; without a word they reach nothing', () => {
  const kms = 'type: gcp\n  projectID: p1-project\n  location: europe\n  keyRing: ring\n  keyName: key';
  const text = good.replace('type: cluster', kms).replace('egress: false', 'egress: true');
  const config = parseClusterConfig(text);
  assert.equal(config.provider.local.egress, true);
  assert.deepEqual(parseClusterConfig(renderClusterConfig(config)), config);
  assert.equal(parseClusterConfig(good.replace('egress: false', '')).provider.local.egress, false);
});

test('the rendered file has comments and parses to what was rendered', () => {
  assert.deepEqual(parseClusterConfig(good), example);
  assert.ok(good.split('\n').filter((line) => line.trim().startsWith('#')).length >= 10);
});
