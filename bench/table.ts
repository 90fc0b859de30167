import type { Row } from './bench.ts';

/** Rows as a table of fixed columns, Markdown as well as readable. */
export function table(rows: readonly Row[]): string {
  const cells = rows.map(({ what, value, unit, limit, note }) => [
    what,
    number(value),
    unit,
    limit === undefined ? '' : `${number(limit.value)} (${limit.what})`,
    limit === undefined ? '' : `${number((100 * value) / limit.value)} %`,
    note ?? '',
  ]);
  const heads = ['what', 'value', 'unit', 'limit, same run', 'of limit', 'note'];
  const widths = heads.map((head, i) => Math.max(head.length, ...cells.map((row) => row[i]!.length)));
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, i) => (i === 1 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!))).join(' | ')} |`;
  const rule = `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`;
  return [line(heads), rule, ...cells.map(line)].join('\n');
}

function number(value: number): string {
  return value >= 100 ? String(Math.round(value)) : value.toPrecision(3);
}
