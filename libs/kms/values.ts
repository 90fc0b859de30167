import type { Value } from './settings.ts';

type Given = Readonly<Record<string, string | undefined>>;

/** @returns what is wrong with the values, without any of them; undefined where nothing is */
export function faultOf(rows: Readonly<Record<string, Value>>, given: Given): string | undefined {
  for (const [name, value] of Object.entries(given)) {
    const row = Object.hasOwn(rows, name) ? rows[name] : undefined;
    if (row === undefined) return `${name} is not known here`;
    if (value !== undefined && !row.pattern.test(value))
      return `${name} is not what it should be: ${row.about}`;
  }
  for (const [name, { required, about }] of Object.entries(rows))
    if (required && given[name] === undefined) return `${name} is missing: ${about}`;
  return undefined;
}

/** The rows where none is required. */
export function optional(rows: Readonly<Record<string, Value>>): Record<string, Value> {
  return Object.fromEntries(Object.entries(rows).map(([name, row]) => [name, { ...row, required: false }]));
}
