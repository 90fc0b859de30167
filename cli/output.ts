import { AsterismError, type Check, PolicyError, VerificationError } from '@asterism/errors/errors';

export type OutputFormat = 'text' | 'json';

/** Where a command's words go: results to standard output, everything else to standard error. */
export class Output {
  readonly format: OutputFormat;
  readonly debug: boolean;
  readonly #colour: boolean;

  constructor(format: OutputFormat, debug: boolean) {
    this.format = format;
    this.debug = debug;
    this.#colour = process.stdout.isTTY === true && process.env.NO_COLOR === undefined;
  }

  /** The command's result: `value` as one JSON document, or `text`. Called once. */
  result(value: unknown, text: string): void {
    process.stdout.write(this.format === 'json' ? `${JSON.stringify(value, null, 2)}\n` : `${text}\n`);
  }

  /** A remark for a person. */
  note(text: string): void {
    process.stderr.write(`${text}\n`);
  }

  warn(text: string): void {
    process.stderr.write(`warning: ${text}\n`);
  }

  /** What, why and what next; the stack only with --debug. */
  error(error: unknown): void {
    process.stderr.write(`${describeError(error, this.debug)}\n`);
  }

  /** One check of evidence on a line of its own. */
  checkLine({ name, outcome, detail }: Check): string {
    const [mark, colour] = { passed: ['✓', 32], warning: ['!', 33], failed: ['✗', 31] }[outcome] as [
      string,
      number,
    ];
    return `  ${this.#colour ? `\x1b[${colour}m${mark}\x1b[0m` : mark} ${name}: ${detail}`;
  }
}

/** Text of an error and, where they add something, its causes. */
export function describeError(error: unknown, debug: boolean): string {
  if (!(error instanceof Error)) return `error: ${String(error)}`;
  const lines = [`error: ${error.message}${error instanceof AsterismError ? ` [${error.code}]` : ''}`];
  const seen = new Set<unknown>([error]);
  let said = error.message;
  for (let at = error.cause; at instanceof Error && !seen.has(at); at = at.cause) {
    seen.add(at);
    if (said.includes(at.message) || at.message === '') continue;
    lines.push(`  because: ${at.message}`);
    said += at.message;
  }
  if (error instanceof VerificationError || error instanceof PolicyError) {
    for (const { name, outcome, detail } of error.checks) {
      if (outcome === 'failed') lines.push(`  ✗ ${name}: ${detail}`);
    }
  }
  if (error instanceof AggregateError) {
    for (const one of error.errors) lines.push(`  - ${one instanceof Error ? one.message : String(one)}`);
  }
  if (debug) lines.push(error.stack ?? '');
  return lines.join('\n');
}
