import { ParseError } from '@asterism/errors/errors';
import { isAlias, isMap, isScalar, LineCounter, parseDocument, visit } from 'yaml';
import type { z } from 'zod';
import { knownKeys, nearest } from './suggest.ts';

/** Largest file that is looked at, in bytes. A full configuration has about 4,000. */
export const MAX_FILE_BYTES = 256 * 1024;
/** Deepest nesting of a file. The schemas need 5. */
const MAX_DEPTH = 32;

/**
 * Reads YAML strictly and checks it against a schema. No aliases, no tags, no duplicate or unknown keys, no second
 * document; size and depth are bounded.
 *
 * @param name what the input is called in messages, e.g. its file name
 * @throws ParseError with code ERR_CONFIG; the message names the line, the path of the key and the nearest known key
 */
export function parseYaml<T>(text: string, schema: z.ZodType<T>, name: string): T {
  const fail = (message: string): never => {
    throw new ParseError(`${name}${message}`, { code: 'ERR_CONFIG' });
  };
  if (Buffer.byteLength(text) > MAX_FILE_BYTES) {
    fail(`: the file is larger than ${MAX_FILE_BYTES} bytes; a configuration is not`);
  }
  if (nestsTooDeep(text)) fail(`: nested deeper than ${MAX_DEPTH} levels`);
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    strict: true,
    schema: 'core',
    merge: false,
    logLevel: 'error',
  });
  const line = (offset: number) => lines.linePos(offset).line;
  const problem = document.errors[0] ?? document.warnings[0];
  if (problem !== undefined) fail(`:${line(problem.pos[0])}: ${problem.message}`);
  visit(document, (_, node) => {
    if (isAlias(node)) fail(`:${line(node.range?.[0] ?? 0)}: aliases (*name) are not allowed here`);
  });

  const lineAt = (path: readonly PropertyKey[]): string => {
    for (let depth = path.length; depth > 0; depth--) {
      const parent = depth === 1 ? document.contents : document.getIn(path.slice(0, depth - 1), true);
      const pair = isMap(parent)
        ? parent.items.find(
            (item) => isScalar(item.key) && String(item.key.value) === String(path[depth - 1]),
          )
        : undefined;
      if (isScalar(pair?.key) && pair.key.range) return `:${line(pair.key.range[0])}`;
    }
    return '';
  };
  return check(document.toJS({ maxAliasCount: 0 }), schema, name, lineAt);
}

/** The same for JSON (duplicate keys are not told apart there). */
export function parseJson<T>(text: string, schema: z.ZodType<T>, name: string): T {
  if (Buffer.byteLength(text) > MAX_FILE_BYTES) {
    throw new ParseError(`${name}: the file is larger than ${MAX_FILE_BYTES} bytes`, { code: 'ERR_CONFIG' });
  }
  if (text.trim() === '') throw new ParseError(`${name}: is empty`, { code: 'ERR_CONFIG' });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's own message quotes the input, which may be a secret.
    throw new ParseError(`${name}: not JSON; restore the file from a copy`, { code: 'ERR_CONFIG' });
  }
  return check(value, schema, name, () => '');
}

/** @throws ParseError (ERR_CONFIG) that lists every issue, one a line */
export function check<T>(
  value: unknown,
  schema: z.ZodType<T>,
  name: string,
  lineAt: (path: readonly PropertyKey[]) => string,
): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const messages = result.error.issues.flatMap((issue) => {
    if (issue.code !== 'unrecognized_keys') {
      const where = issue.path.length === 0 ? '' : ` ${issue.path.map(String).join('.').slice(0, 200)}:`;
      return [`${name}${lineAt(issue.path)}:${where} ${wordsOf(issue, valueAt(value, issue.path))}`];
    }
    return issue.keys.map((key) => {
      const known = knownKeys(schema, issue.path, value);
      const suggestion = nearest(key, known);
      const hint =
        suggestion === undefined ? `known here: ${known.join(', ')}` : `did you mean '${suggestion}'?`;
      const path = [...issue.path, key].map(String).join('.');
      return `${name}${lineAt([...issue.path, key])}: ${path.slice(0, 200)}: unknown key; ${hint}`;
    });
  });
  // Without the schema library's error as cause: that one's message is all of this again, as JSON.
  throw new ParseError(messages.join('\n'), { code: 'ERR_CONFIG' });
}

function wordsOf(issue: z.core.$ZodIssue, found: unknown): string {
  if (issue.code === 'invalid_key') return issue.issues.map(({ message }) => message).join('; ');
  if (found === undefined) return 'is missing';
  if (found === null) return 'is empty';
  return issue.message;
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let at = value;
  for (const step of path) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, step)) return undefined;
    at = (at as Record<PropertyKey, unknown>)[step];
  }
  return at;
}

/** A cheap look before the parser, whose recursion a hostile file could exhaust. */
function nestsTooDeep(text: string): boolean {
  let flow = 0;
  for (const character of text) {
    if (character === '[' || character === '{') flow += 1;
    else if (character === ']' || character === '}') flow = Math.max(0, flow - 1);
    if (flow > MAX_DEPTH) return true;
  }
  for (const row of text.split('\n')) {
    // One level of block nesting takes one column at least; "- - - x" nests within a line.
    const lead = /^[ \-?:\t]*/.exec(row)?.[0] ?? '';
    if (lead.replaceAll(' ', '').length > MAX_DEPTH || lead.length > 8 * MAX_DEPTH) return true;
  }
  return false;
}
