import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ParseError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { parseJson } from './json.ts';

describe('parseJson', () => {
  for (const text of [
    '{"a":1,"a":1}',
    '{"a":{"b":1,"\\u0062":2}}',
    '{"__proto__":1,"__proto__":2}',
    '{"constructor":1,"constructor":1}',
    '',
    ' ',
    '{',
    '[1,]',
    '{"a":1,}',
    '{a:1}',
    "{'a':1}",
    '01',
    '1.',
    '+1',
    'NaN',
    'nulll',
    '[1] 2',
    '"\\x"',
    '"\n"',
    '"open',
    '"\\"',
    '[1 2]',
    '{"a" 1}',
    '\u00a01',
    '/**/1',
    `${'['.repeat(18)}${']'.repeat(18)}`,
    '['.repeat(100_000),
  ]) {
    it(`refuses ${JSON.stringify(text.slice(0, 40))}`, () =>
      assert.throws(() => parseJson(text), ParseError));
  }

  it('makes objects without a prototype, so that no name is special', () => {
    const object = parseJson('{"__proto__":{"x":1},"toString":2}') as Record<string, unknown>;
    assert.deepEqual(Object.keys(object), ['__proto__', 'toString']);
    assert.equal(({} as Record<string, unknown>).x, undefined);
  });

  it('reads what JSON.parse reads', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 5 }), fc.constantFrom(0, 2), (text, indent) => {
        const value: unknown = JSON.parse(text);
        assert.equal(JSON.stringify(parseJson(JSON.stringify(value, null, indent))), JSON.stringify(value));
      }),
    );
  });

  it('never takes what JSON.parse refuses, and fails with ParseError only', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'{}[]",:\\ntu0e1.- a'), maxLength: 20 }), (text) => {
        let value: unknown;
        try {
          value = parseJson(text);
        } catch (error) {
          assert.ok(error instanceof ParseError);
          return;
        }
        assert.equal(JSON.stringify(value), JSON.stringify(JSON.parse(text)));
      }),
      { numRuns: 5000 },
    );
  });
});
