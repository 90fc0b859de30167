import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toUtf8 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { parseListPage } from './listing.ts';

test('a page is read as it was written', () => {
  const next = fc.option(fc.string({ minLength: 1 }), { nil: undefined });
  fc.assert(
    fc.property(fc.array(fc.string()), next, (names, nextPageToken) => {
      const page = {
        kind: 'storage#objects',
        items: names.map((name) => ({ name, size: '1' })),
        nextPageToken,
      };
      assert.deepEqual(parseListPage(toUtf8(JSON.stringify(page))), { names, next: nextPageToken });
    }),
  );
  assert.deepEqual(parseListPage(toUtf8('{}')), { names: [], next: undefined });
});

test('anything else is a ParseError', () => {
  const page = fc.record(
    { items: fc.jsonValue({ maxDepth: 2 }), nextPageToken: fc.jsonValue({ maxDepth: 1 }) },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array(),
        page.map((value) => toUtf8(JSON.stringify(value))),
      ),
      (bytes) => {
        try {
          parseListPage(bytes);
        } catch (error) {
          assert.ok(error instanceof ParseError);
        }
      },
    ),
  );
});
