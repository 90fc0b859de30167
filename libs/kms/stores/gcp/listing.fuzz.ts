import { toUtf8 } from '@asterism/bytes/encoding';
import { parseListPage } from './listing.ts';

export const name = 'kms/gcs-listing';

export const seeds = [
  '{}',
  '{"kind":"storage#objects","items":[{"name":"asterism/mini/key-1"},{"name":"key-2"}],"nextPageToken":"Cgtr"}',
].map(toUtf8);

/** Whatever is answered is refused by ParseError, or is a page. */
export function run(input: Uint8Array): void {
  const { names, next } = parseListPage(input);
  if (names.some((name) => typeof name !== 'string') || next === '') throw new Error('no page');
}
