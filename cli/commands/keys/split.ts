import { resolve } from 'node:path';
import { zero } from '@asterism/bytes/bytes';
import { fromHex } from '@asterism/bytes/encoding';
import { MASTER_SECRET_FILE } from '@asterism/config/master-secret';
import type { ClusterState } from '@asterism/config/state';
import { WorkspaceError } from '@asterism/config/workspace';
import { MAX_SHARES } from '@asterism/shares/share';
import { Command } from 'commander';
import { contextOf } from '../../context.ts';
import { checkOfCluster, masterSecretOfFile } from '../../flows/master-secret-source.ts';
import { type PreparedShare, prepareShares, terminalQr, writeShares } from '../../flows/shares-split.ts';
import { hex32, integer } from '../../options.ts';
import { masterSecretOption } from './secret-options.ts';

/** Folder of a workspace that shares are written to by default. */
const SHARES_FOLDER = 'recovery-shares';

interface SplitOptions {
  readonly shares: number;
  readonly threshold: number;
  readonly out?: string;
  readonly print: boolean;
  readonly qr: boolean;
  readonly masterSecret?: string;
  readonly clusterId?: string;
}

export function splitCommand(): Command {
  return new Command('split')
    .description('Split the master secret into recovery shares of which a given number gives it back.')
    .requiredOption(
      '--shares <n>',
      `how many shares there will be, 2 to ${MAX_SHARES}`,
      integer(2, MAX_SHARES),
    )
    .requiredOption('--threshold <k>', 'how many of them are needed, from 2 on', integer(2, MAX_SHARES))
    .option(
      '--out <folder>',
      `where to write a file for each share (default: ${SHARES_FOLDER} in the workspace)`,
    )
    .option('--qr', 'write (or print) QR codes too', false)
    .option('--print', 'print the shares; files are written only where --out says so', false)
    .addOption(masterSecretOption())
    .option('--cluster-id <hex>', 'the cluster that the secret is of, where there is no state file', hex32)
    .addHelpText(
      'after',
      `
Fewer shares than the threshold say nothing of the secret. Files have mode 0600, and none is overwritten.
Each split stands for itself: its shares do not go with those of another one.`,
    )
    .action(split);
}

async function split(options: SplitOptions, command: Command): Promise<void> {
  const context = contextOf(command);
  const { workspace, out } = context;
  if (options.threshold > options.shares)
    command.error(`error: ${options.threshold} of ${options.shares} shares cannot be needed`);
  const state = await workspace.state();
  const clusterId = clusterIdOf(state, options.clusterId);
  const secret = await masterSecretOfFile(context, options.masterSecret);
  const file = options.masterSecret ?? workspace.path(MASTER_SECRET_FILE);
  checkOfCluster(secret, state, file);
  const { shares: count, threshold } = options;
  const plan = { secret, clusterId: fromHex(clusterId), name: state?.name, count, threshold };
  const shares = await prepareShares(plan);
  const folder = options.out ?? (options.print ? undefined : workspace.path(SHARES_FOLDER));
  const files = folder === undefined ? [] : await writeShares(resolve(folder), plan, shares, options.qr);
  zero(secret.key);

  const { generation = 1 } = secret;
  const printed = options.print ? shares.map(({ index, text, code }) => ({ index, text, code })) : undefined;
  const texts = options.print ? [shares.map((share) => printable(share, options.qr)).join('\n')] : [];
  if (files.length > 0)
    texts.push(`Wrote ${count} shares, ${threshold} of which are needed:\n  ${files.join('\n  ')}`);
  out.result({ clusterId, generation, count, threshold, files, shares: printed }, texts.join('\n'));
  out.note(whatNext(file, files, threshold));
}

/** @throws WorkspaceError (ERR_NO_CLUSTER, ERR_FOREIGN_CLUSTER) */
function clusterIdOf(state: ClusterState | undefined, given: string | undefined): string {
  const found = state?.clusterId;
  if (found !== undefined && given !== undefined && found !== given)
    throw new WorkspaceError(
      'ERR_FOREIGN_CLUSTER',
      `the state file tells of the cluster ${found}; for another one use another workspace (--workspace)`,
    );
  const clusterId = found ?? given;
  if (clusterId !== undefined) return clusterId;
  throw new WorkspaceError(
    'ERR_NO_CLUSTER',
    'shares are bound to a cluster, and this workspace has none that was initialized; run asterism init first, or ' +
      'name the cluster with --cluster-id',
  );
}

function printable(share: PreparedShare, qr: boolean): string {
  return qr ? `${share.text}\n${terminalQr(share)}\n` : share.text;
}

function whatNext(file: string, files: readonly string[], threshold: number): string {
  const steps = [
    `Try that ${threshold} of them are enough: asterism keys combine --check SHARE...`,
    `Give each share to another person or place${files.length === 0 ? '' : ', and delete the files here'}.`,
    `Then ${file} need not stay on this machine: asterism recover and asterism keys derive take shares in its place. ` +
      'Changing the master secret needs it once more, and makes these shares out of date.',
  ];
  return `What to do next:\n${steps.map((step, i) => `  ${i + 1}. ${step}`).join('\n')}`;
}
