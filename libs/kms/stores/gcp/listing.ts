import { fromUtf8 } from '@asterism/bytes/encoding';
import { parseJson } from '@asterism/bytes/json';
import { ParseError } from '@asterism/errors/errors';

const MAX_TOKEN = 8192;

/** One page of `objects.list`. */
export interface ListPage {
  /** Full names of objects, with the prefix. */
  readonly names: readonly string[];
  /** For the next page; undefined: there is none. */
  readonly next: string | undefined;
}

/** @throws ParseError */
export function parseListPage(answer: Uint8Array): ListPage {
  const page = parseJson(fromUtf8(answer));
  if (typeof page !== 'object' || page === null || Array.isArray(page))
    throw new ParseError('no JSON object');
  const { items = [], nextPageToken: next } = page as { items?: unknown; nextPageToken?: unknown };
  if (!Array.isArray(items)) throw new ParseError('items is no list');
  if (next !== undefined && (typeof next !== 'string' || next === '' || next.length > MAX_TOKEN))
    throw new ParseError('nextPageToken is no token');
  return { names: items.map(nameOf), next };
}

function nameOf(item: unknown): string {
  const { name } = (item ?? {}) as { name?: unknown };
  if (typeof name !== 'string') throw new ParseError('an item has no name');
  return name;
}
