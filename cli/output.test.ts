import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AsterismError, PolicyError } from '@asterism/errors/errors';
import { describeError, messageOf } from './output.ts';

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

test('the empty remark at the end of a gRPC message is left out, one that says something is not', () => {
  const message = 'No connection established. Last error: Error: connect ECONNREFUSED 10.77.1.11:30081';
  assert.equal(messageOf(new Error(`${message}. Resolution note: `)), message);
  assert.equal(describeError(new Error(`${message}. Resolution note:`), false), `error: ${message}`);
  assert.match(messageOf(new Error(`${message}. Resolution note: no DNS`)), /no DNS$/);
});

test('words of a peer in an error or a check cannot draw on the terminal', () => {
  const drawn = '\x1b[1A\x1b[32m✓ verified\x1b[0m\r';
  const error = new PolicyError('ERR_PCR', drawn, {
    cause: new Error(`because ${drawn}`),
    checks: [{ name: 'pcr-4', outcome: 'failed', detail: drawn }],
  });
  assert.doesNotMatch(describeError(error, false), /[^\P{C}\n]/u);
  assert.equal(describeError(error, false).split('\n').length, 3);
});
