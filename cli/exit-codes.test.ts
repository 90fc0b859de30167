import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  AsterismError,
  ParseError,
  PolicyError,
  UnreachableError,
  VerificationError,
} from '@asterism/errors/errors';
import { exitCodeOf, gravest } from './exit-codes.ts';

const system = (code: string) => Object.assign(new Error(code), { code });

for (const [what, error, code] of [
  ['false evidence', new VerificationError('ERR_X', 'x'), 2],
  ['a policy that is not met', new PolicyError('ERR_X', 'x'), 3],
  ['a silent peer', new UnreachableError('x'), 4],
  ['a refused connection', system('ECONNREFUSED'), 4],
  ['bad input', new ParseError('x'), 1],
  ['a bug', new TypeError('x'), 1],
  ['a missing file', system('ENOENT'), 1],
  ['something that is no error', 'x', 1],
  [
    'false evidence within a failure',
    new AsterismError('ERR_X', 'x', { cause: new VerificationError('ERR_Y', 'y') }),
    2,
  ],
  [
    'a silent peer whose cause is false evidence',
    new UnreachableError('x', { cause: new VerificationError('E', 'y') }),
    4,
  ],
  [
    'several, false evidence among them',
    new AggregateError([new UnreachableError('x'), new VerificationError('E', 'y')]),
    2,
  ],
] as const) {
  test(`${what} exits with ${code}`, () => assert.equal(exitCodeOf(error), code));
}

test('an error that is its own cause ends', () => {
  const error = new Error('x');
  error.cause = error;
  assert.equal(exitCodeOf(error), 1);
});

test('of several outcomes the gravest counts', () => {
  assert.equal(gravest([0, 4, 3, 2]), 2);
  assert.equal(gravest([0, 4, 1]), 1);
  assert.equal(gravest([0, 0]), 0);
  assert.equal(gravest([]), 0);
});
