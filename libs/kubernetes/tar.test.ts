import assert from 'node:assert/strict';
import { it } from 'node:test';
import { checkTarPath } from './tar.ts';

it('accepts plain paths', () => {
  for (const path of ['a/b/c', '/a/b/c', '/a/b/.d', '/a/b/..d', '.']) checkTarPath(path);
});

it('refuses paths that climb, even where they would come back', () => {
  for (const path of ['..', '../', '/..', '/../', 'a/..', 'a/../', 'a/b/c/../../../../c/d/e', '', 'a\0b']) {
    assert.throws(() => checkTarPath(path), { code: 'ERR_PARSE' }, path);
  }
});
