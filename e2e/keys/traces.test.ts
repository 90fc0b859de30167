import assert from 'node:assert/strict';
import { test } from 'node:test';
import { testCa } from '@asterism/testkit/test-ca';
import { assertNoTrace } from './traces.ts';

test('a secret is found as it is, line by line, in JSON, and in base64', async () => {
  const { key } = await (await testCa()).issue({ name: 'x', usage: 'client' });
  const account = JSON.stringify({ type: 'service_account', private_key: key, client_email: 'a@b' });
  for (const secret of [key, account, 'hunter22hunter22']) {
    for (const written of [
      secret,
      secret.split(/\\n|\n/).join(' '),
      JSON.stringify({ kms: secret }),
      Buffer.from(secret).toString('base64'),
    ]) {
      assert.throws(() => assertNoTrace('log', `a line\n${written}\n`, [secret]), /log has credential 0/);
    }
    const other = '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{"type":"service_account","';
    assertNoTrace('log', other, [secret]);
  }
});
