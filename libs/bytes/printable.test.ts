import assert from 'node:assert/strict';
import { test } from 'node:test';
import { printable } from './printable.ts';

test('nothing of foreign text draws on a terminal, starts a line or turns the direction of text', () => {
  for (const [text, safe] of [
    ['no such key: é 漢字 ✓', 'no such key: é 漢字 ✓'],
    ['\x1b[2K\x1b[1A\x1b[32m✓ verified\x1b[0m', '?[2K?[1A?[32m✓ verified?[0m'],
    ['a\r\nverified\tb', 'a verified b'],
    ['\u009b31m \u202egnp.exe \u2028x\u0000', '?31m ?gnp.exe ?x?'],
  ] as const)
    assert.equal(printable(text, 100), safe);
  assert.equal(printable('x'.repeat(200), 10), 'xxxxxxxxxx…');
});
