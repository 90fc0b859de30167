import { printable } from '@asterism/bytes/printable';
import { AsterismError, type Check, PolicyError, VerificationError } from '@asterism/errors/errors';

export type OutputFormat = 'text' | 'json';

const MAX_DETAIL = 4096;

/** Where a command's words go: results to standard output, everything else to standard error. */
export class Output {
  readonly format: OutputFormat;
  readonly #colour: boolean;

  constructor(format: OutputFormat) {
    this.format = format;
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

  /** One check of evidence on a line of its own. */
  checkLine({ name, outcome, detail }: Check): string {
    const [mark, colour] = { passed: ['✓', 32], warning: ['!', 33], failed: ['✗', 31] }[outcome] as [
      string,
      number,
    ];
    return `  ${this.#colour ? `\x1b[${colour}m${mark}\x1b[0m` : mark} ${name}: ${printable(detail, MAX_DETAIL)}`;
  }
}

/** What an error says, without the empty remark that the gRPC library ends some of its messages with. */
export function messageOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  // Some of its words are a peer's: they must not draw on the terminal. Lines are for messages of several to have.
  return message.replace(/\.? Resolution note: *$/, '').replaceAll(/[^\P{C}\n]/gu, '?');
}

/** Text of an error and, where they add something, its causes. The stack only with `debug`. */
export function describeError(error: unknown, debug: boolean): string {
  if (!(error instanceof Error)) return `error: ${messageOf(error)}`;
  let said = messageOf(error);
  const lines = [`error: ${said}${error instanceof AsterismError ? ` [${error.code}]` : ''}`];
  const seen = new Set<unknown>([error]);
  for (let at = error.cause; at instanceof Error && !seen.has(at); at = at.cause) {
    seen.add(at);
    const message = messageOf(at);
    if (said.includes(message) || message === '') continue;
    lines.push(`  because: ${message}`);
    said += message;
  }
  if (error instanceof VerificationError || error instanceof PolicyError) {
    for (const { name, outcome, detail } of error.checks) {
      if (outcome === 'failed') lines.push(`  ✗ ${name}: ${printable(detail, MAX_DETAIL)}`);
    }
  }
  if (error instanceof AggregateError) {
    for (const one of error.errors) lines.push(`  - ${messageOf(one)}`);
  }
  if (debug) lines.push(error.stack ?? '');
  return lines.join('\n');
}
