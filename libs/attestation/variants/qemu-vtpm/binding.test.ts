import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromHex, toHex, toUtf8 } from '@asterism/bytes/encoding';
import { qualifyingData } from './binding.ts';

// key-vectors.md section 2
for (const [userData, nonce, expected] of [
  ['Constellation', '01020304', 'cfc52e55ebecb9c8d5da5f58c838eef30bee7575d1cde5559336e3b90234cbd2'],
  [
    'VerifyService',
    '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',
    'bfcc1ef1a22179c1eb38771beb6e106a4ce3f18c95a0f1d8e7ce27b45486ee60',
  ],
] as const) {
  test(`what a v2.6 quote binds: ${userData}`, async () => {
    const bound = await qualifyingData('v2.6', toUtf8(userData), fromHex(nonce), undefined);
    assert.equal(toHex(bound), expected);
  });
}
