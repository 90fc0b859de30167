import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { KmsError, KmsUnavailableError } from '../../errors.ts';
import { awsFailure, failure } from './failure.ts';

// The hostile servers of hostile.test.ts show what real errors of the SDK become; here is what no SDK has thrown yet.

const anything = fc.anything({ withBigInt: true, withNullPrototype: true });
const errorLike = fc.record(
  {
    name: fc.oneof(
      fc.string(),
      fc.constantFrom('Error', 'ThrottlingException', 'AccessDeniedException'),
      anything,
    ),
    code: fc.oneof(fc.string(), fc.constantFrom('ECONNREFUSED', 'ERR_TLS_CERT_ALTNAME_INVALID'), anything),
    message: anything,
    $metadata: fc.oneof(fc.record({ httpStatusCode: anything, requestId: anything }), anything),
    $response: fc.oneof(fc.record({ headers: fc.record({ 'retry-after': anything }) }), anything),
  },
  { requiredKeys: [] },
);

test('whatever was thrown becomes an error of ours, short and in plain text', () => {
  fc.assert(
    fc.property(fc.oneof(errorLike, anything), fc.constantFrom('KMS', 'STORE'), (thrown, service) => {
      const error = failure(service, 'AWS', thrown);
      assert.ok(error instanceof KmsError || error instanceof KmsUnavailableError);
      assert.match(error.message, /^AWS: [\x20-\x7e]{1,500}$/);
      assert.equal(error.cause, undefined);
    }),
  );
});

test('what it says of itself is taken in bounds only', () => {
  assert.deepEqual(
    awsFailure({ name: 'A'.repeat(65), $metadata: { requestId: 'a'.repeat(37), httpStatusCode: -1 } }),
    {
      name: 'an error without a name',
      status: undefined,
      requestId: undefined,
      retryAfterMs: undefined,
    },
  );
  const thrown = {
    name: 'ThrottlingException',
    $metadata: { requestId: '6ad26d25-8f3d-4a57-a0a4-1b4cb6d8bc1a', httpStatusCode: 400 },
    $response: { headers: { 'retry-after': '17' } },
  };
  assert.deepEqual(awsFailure(thrown), {
    name: 'ThrottlingException',
    status: 400,
    requestId: '6ad26d25-8f3d-4a57-a0a4-1b4cb6d8bc1a',
    retryAfterMs: 17_000,
  });
});

test('an error of ours stays what it is', () => {
  const error = new KmsError('ERR_KMS_ANSWER', 'too large');
  assert.equal(failure('KMS', 'AWS', error), error);
});
