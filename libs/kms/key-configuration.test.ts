import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseHomeCredentials, parseKeyConfiguration, renderKeyConfiguration } from './key-configuration.ts';

const home = { kmsUri: 'kms://vault?address=x', storageUri: 'storage://kubernetes' };
const credentials = { kms: { token: 'hunter22' }, storage: {} };

test('what is printed is read', () => {
  for (const homes of [[home], [home, { ...home, credentials }]]) {
    assert.deepEqual(parseKeyConfiguration(renderKeyConfiguration({ homes })), { homes });
  }
  assert.deepEqual(parseHomeCredentials(JSON.stringify(credentials)), credentials);
});

for (const [what, text] of [
  ['nothing', ''],
  ['no JSON', '{hunter22'],
  ['no home', '{"version":1,"homes":[]}'],
  ['three homes', JSON.stringify({ version: 1, homes: [home, home, home] })],
  ['another version', JSON.stringify({ version: 2, homes: [home] })],
  ['an unknown field', JSON.stringify({ version: 1, homes: [{ ...home, token: 'hunter22' }] })],
  [
    'a secret that is no text',
    JSON.stringify({ version: 1, homes: [{ ...home, credentials: { kms: { a: ['hunter22'] } } }] }),
  ],
  ['too much', ' '.repeat(300_000)],
] as const) {
  test(`${what} is refused, and not quoted`, () => {
    assert.throws(
      () => parseKeyConfiguration(text),
      (error: Error & { code?: string }) =>
        error.code === 'ERR_KEY_CONFIGURATION' && !`${error.stack}`.includes('hunter22'),
    );
  });
}
