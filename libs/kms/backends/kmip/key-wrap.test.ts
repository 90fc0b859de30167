import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { WrappedKey } from '../../kek.ts';
import { honestScript, KEY_ID } from './honest-script.fixture.ts';
import { CONTEXT, fails, key, scripted, using } from './trial.fixture.ts';

describe('AES Key Wrap, for a key whose Cryptographic Parameters say NISTKeyWrap', () => {
  const keyWrap = honestScript(new Uint8Array(32).fill(9), 'key wrap');

  test('wraps and unwraps; damaged, truncated and foreign bytes are refused', async () => {
    await scripted(keyWrap, async (kek) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      assert.deepEqual([wrapped.mechanism, wrapped.wrappedKey.length, wrapped.keyId], [2, 40, KEY_ID]);
      assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), key);
      assert.match((await kek.status()).detail, /AES Key Wrap/);
      const refused = { name: 'KmsError', code: 'ERR_KMS_UNWRAP' };
      const flipped = wrapped.wrappedKey.slice();
      flipped[20]! ^= 1;
      for (const wrappedKey of [flipped, wrapped.wrappedKey.subarray(8), new Uint8Array(40)])
        await fails(kek.unwrap({ ...wrapped, wrappedKey }, CONTEXT), refused);
      await fails(kek.unwrap({ ...wrapped, mechanism: 1 }, CONTEXT), refused);
    });
  });

  test('what AES-GCM wrapped is still unwrapped when the key’s parameters change, and the other way round', async () => {
    const one = new Uint8Array(32).fill(9);
    await scripted(honestScript(one), async (kek, server) => {
      const gcm = await kek.wrap(key, CONTEXT);
      server.script = honestScript(one, 'key wrap');
      let wrapped: WrappedKey | undefined;
      await using(server.port, async (later) => {
        assert.deepEqual(await later.unwrap(gcm, CONTEXT), key);
        wrapped = await later.wrap(key, CONTEXT);
      });
      assert.deepEqual(await kek.unwrap(wrapped!, CONTEXT), key);
    });
  });
});
