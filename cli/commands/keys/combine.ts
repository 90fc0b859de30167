import { zero } from '@asterism/bytes/bytes';
import { fromHex } from '@asterism/bytes/encoding';
import { MASTER_SECRET_FILE, renderMasterSecret } from '@asterism/config/master-secret';
import { Command, Option } from 'commander';
import { contextOf } from '../../context.ts';
import { checkOfCluster } from '../../flows/master-secret-source.ts';
import { secretFromShares } from '../../flows/shares-read.ts';
import { writeNew } from './files.ts';

interface CombineOptions {
  readonly out?: string;
  readonly check: boolean;
}

export function combineCommand(): Command {
  return new Command('combine')
    .description('Make the master-secret file of recovery shares.')
    .argument('[share...]', 'files with a share each; without them the shares are asked for')
    .option('--out <file>', `the file to write (default: ${MASTER_SECRET_FILE} in the workspace)`)
    .addOption(
      new Option('--check', 'write nothing: only say whether the shares are enough')
        .default(false)
        .conflicts('out'),
    )
    .addHelpText(
      'after',
      `
A share that is damaged, given twice, of another cluster, of another generation or of another split is named.
The file has mode 0600 and does not replace another. Words may be cut to their first four letters.`,
    )
    .action(combine);
}

async function combine(files: readonly string[], options: CombineOptions, command: Command): Promise<void> {
  const context = contextOf(command);
  const { workspace, out } = context;
  const state = await workspace.state();
  const wanted = state?.clusterId === undefined ? undefined : fromHex(state.clusterId);
  const source = files.length === 0 ? 'standard input' : { files };
  const { secret, clusterId, generation } = await secretFromShares(context, source, wanted);
  checkOfCluster(secret, state, 'the shares');
  const what = `the master secret of cluster ${clusterId} (generation ${generation})`;
  if (options.check) {
    zero(secret.key);
    out.result({ clusterId, generation }, `These shares give ${what}.`);
    return;
  }
  const path = await writeNew(options.out ?? workspace.path(MASTER_SECRET_FILE), renderMasterSecret(secret));
  zero(secret.key);
  out.result({ clusterId, generation, file: path }, `Wrote ${what} to ${path}.`);
}
