import { mkdir } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { printable } from '@asterism/bytes/printable';
import { KUBECONFIG_FILE } from '@asterism/config/workspace';
import { Command, InvalidArgumentError } from 'commander';
import { type Context, contextOf } from '../../context.ts';
import { EXIT } from '../../exit-codes.ts';
import { adminApi } from '../../flows/admin-api.ts';
import { type AuditLine, type CheckedLog, checkAuditFile, readClusterAudit } from '../../flows/audit-logs.ts';
import { integer, repeated } from '../../options.ts';

interface AuditOptions {
  readonly file: readonly string[];
  readonly keep?: string;
  readonly key?: string;
  readonly node?: string;
  readonly outcome?: string;
  readonly since?: Date;
  readonly last: number;
}

export function auditCommand(): Command {
  return new Command('audit')
    .description(
      'Who got which key when, from the audit logs of the control planes; their chains are checked first.',
    )
    .option('--file <log>', 'check and read this file, not the cluster (repeatable)', repeated, [])
    .option('--keep <folder>', 'keep copies of the logs there, for auditors')
    .option('--key <id>', 'only lines about this key or disk')
    .option('--node <name>', 'only lines about this node')
    .option('--outcome <granted|refused>', 'only lines of this outcome', outcome)
    .option('--since <time>', 'only lines from then on, e.g. 2026-11-25T02:00:00Z', time)
    .option('--last <n>', 'show the last lines only', integer(1, 1_000_000), 200)
    .addHelpText(
      'after',
      `
Each line of a log holds the hash of the one before: a line that was changed or taken out is found, and the exit code
is 2. Lines that were cut off at the end are not: keep the last hashes ("head") somewhere else to notice that.`,
    )
    .action(audit);
}

async function audit(options: AuditOptions, command: Command): Promise<void> {
  const context = contextOf(command);
  const found: AuditLine[] = [];
  const onLine = (line: AuditLine) => {
    if (!matches(line, options)) return;
    found.push(line);
    if (found.length > 2 * options.last) found.splice(0, found.length - options.last);
  };
  const logs =
    options.file.length > 0
      ? await readFiles(options.file, onLine)
      : await readCluster(context, options, onLine);
  const lines = found.sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0)).slice(-options.last);
  if (logs.some(({ error }) => error !== undefined)) process.exitCode = EXIT.evidenceFalse;
  context.out.result({ logs, lines }, [...lines.map(describeLine), ...logs.map(describeLog)].join('\n'));
}

async function readFiles(files: readonly string[], onLine: (line: AuditLine) => void): Promise<CheckedLog[]> {
  const logs: CheckedLog[] = [];
  for (const file of files) logs.push(await checkAuditFile(resolve(file), '', basename(file), onLine));
  return logs;
}

async function readCluster(
  { workspace, progress, signal }: Context,
  { keep }: AuditOptions,
  onLine: (line: AuditLine) => void,
): Promise<CheckedLog[]> {
  const api = await adminApi(workspace);
  const kubeconfig = (await workspace.read(KUBECONFIG_FILE)) ?? '';
  if (keep !== undefined) await mkdir(keep, { recursive: true, mode: 0o700 });
  return progress.phase('audit', (onStep) =>
    readClusterAudit({
      kubeconfig,
      api,
      signal,
      onStep,
      onLine,
      ...(keep !== undefined && { keep: resolve(keep) }),
    }),
  );
}

function matches(line: AuditLine, { key, node, outcome: wanted, since }: AuditOptions): boolean {
  if (wanted !== undefined && line.outcome !== wanted) return false;
  if (since !== undefined && !(Date.parse(line.time) >= since.getTime())) return false;
  const said = (names: readonly string[]) => names.map((name) => String(line[name] ?? ''));
  if (key !== undefined && !said(['keyId', 'diskUuid']).some((id) => id === key || id.startsWith(`${key}.`)))
    return false;
  return node === undefined || said(['writtenBy', 'node', 'onBehalfOf', 'instanceName']).includes(node);
}

/** Fields that every line has, or that say nothing to a person. */
const LEFT_OUT = new Set(['writtenBy', 'log', 'seq', 'time', 'previous', 'hash', 'event', 'outcome']);

function describeLine(line: AuditLine): string {
  const rest = Object.entries(line).flatMap(([name, value]) =>
    LEFT_OUT.has(name) ? [] : [`${name}=${printable(String(value), 200)}`],
  );
  const where = [line.writtenBy, line.log.replace(/\.log$/, '')].filter(Boolean).join(' ');
  return `${printable(line.time, 40)} ${where}: ${printable(line.event, 60)} ${printable(line.outcome, 20)} ${rest.join(' ')}`;
}

function describeLog({ node, log, lines, head, error }: CheckedLog): string {
  const name = [node, log].filter(Boolean).join(' ');
  return error === undefined
    ? `${name}: ${lines} lines, chain whole, head ${head}`
    : `${name}: NOT TO BE BELIEVED: ${error}`;
}

function outcome(text: string): string {
  if (text !== 'granted' && text !== 'refused')
    throw new InvalidArgumentError('granted or refused is needed.');
  return text;
}

function time(text: string): Date {
  const found = new Date(text);
  if (Number.isNaN(found.getTime()))
    throw new InvalidArgumentError('a time such as 2026-11-25T02:00:00Z is needed.');
  return found;
}
