import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AsterismError, PolicyError } from '@asterism/errors/errors';
import { describeError } from './output.ts';

test('an error is told with its code and the causes that add something, without a stack', () => {
  const root = new Error('connection refused');
  const middle = new AsterismError('ERR_B', 'no answer: connection refused', { cause: root });
  const text = describeError(new AsterismError('ERR_A', 'init failed', { cause: middle }), false);
  assert.equal(text, 'error: init failed [ERR_A]\n  because: no answer: connection refused');
});

test('with --debug the stack is shown', () => {
  assert.match(describeError(new Error('x'), true), /\n\s+at /);
});

test('evidence that was refused is told with the checks that failed', () => {
  const error = new PolicyError('ERR_PCR', 'other measurements', {
    checks: [
      { name: 'pcr-4', outcome: 'passed', detail: 'same' },
      { name: 'pcr-11', outcome: 'failed', detail: 'aa, expected bb' },
    ],
  });
  assert.equal(
    describeError(error, false),
    'error: other measurements [ERR_PCR]\n  ✗ pcr-11: aa, expected bb',
  );
});

test('several errors at once are all told', () => {
  const text = describeError(new AggregateError([new Error('one'), new Error('two')], 'both failed'), false);
  assert.equal(text, 'error: both failed\n  - one\n  - two');
});

test('causes that go round in a circle end', () => {
  const error = new Error('a', { cause: new Error('b') });
  (error.cause as Error).cause = error;
  assert.equal(describeError(error, false), 'error: a\n  because: b');
});

test('what is thrown but no error is told too', () => {
  assert.equal(describeError('x', false), 'error: x');
});
