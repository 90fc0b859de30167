import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { refusal } from './honest-script.fixture.ts';
import { answerTo, type Script } from './scripted-server.fixture.ts';
import { REASON } from './tags.ts';
import { but, CONTEXT, fails, key, scripted } from './trial.fixture.ts';

describe('refusals', () => {
  for (const [reason, code] of [
    ['itemNotFound', 'ERR_KMS_KEY_NOT_FOUND'],
    ['objectNotFound', 'ERR_KMS_KEY_NOT_FOUND'],
    ['objectDestroyed', 'ERR_KMS_KEY_NOT_FOUND'],
    ['authenticationNotSuccessful', 'ERR_KMS_CREDENTIALS'],
    ['permissionDenied', 'ERR_KMS_DENIED'],
    ['notAuthorised', 'ERR_KMS_DENIED'],
    ['wrongKeyLifecycleState', 'ERR_KMS_KEY_DISABLED'],
    ['objectArchived', 'ERR_KMS_KEY_DISABLED'],
    ['operationNotSupported', 'ERR_KMS_SETTINGS'],
    ['unsupportedCryptographicParameters', 'ERR_KMS_SETTINGS'],
    ['invalidMessage', 'ERR_KMS_SETTINGS'],
    ['generalFailure', 'ERR_KMS_ANSWER'],
    ['serverLimitExceeded', 'ERR_KMS_THROTTLED'],
    ['internalServerError', 'ERR_KMS_UNAVAILABLE'],
  ] as const) {
    test(`${reason} is ${code}`, async () => {
      const script = but('encrypt', (asked) => refusal(asked, REASON[reason], 'because'));
      await scripted(script, (kek) => fails(kek.wrap(key, CONTEXT), { code }));
    });
  }

  test('a reason that nobody knows is shown as its number', async () => {
    const script = but('encrypt', (asked) => refusal(asked, 0x1234, 'strange\u001b[31m'));
    await scripted(script, (kek) =>
      assert.rejects(kek.wrap(key, CONTEXT), {
        code: 'ERR_KMS_ANSWER',
        message: /0x1234 \(strange\?\[31m\)/,
      }),
    );
  });

  test('a server that repeats the password is not quoted', async () => {
    const script: Script = (asked) =>
      refusal(asked, REASON.authenticationNotSuccessful, 'no user-name with pass-word');
    const login = { username: 'user-name', password: 'pass-word' };
    await scripted(
      script,
      (kek) => fails(kek.status(), { code: 'ERR_KMS_CREDENTIALS' }, login.username, login.password),
      {},
      login,
    );
  });

  test('a server that does not speak the version says so', async () => {
    const script = but('discoverVersions', (asked) => answerTo(asked, []));
    await scripted(script, (kek) =>
      assert.rejects(kek.status(), { code: 'ERR_KMS_SETTINGS', message: /does not speak KMIP 1\.4/ }),
    );
  });
});
