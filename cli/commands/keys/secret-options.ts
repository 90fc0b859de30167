import { MASTER_SECRET_FILE } from '@asterism/config/master-secret';
import { type Command, Option } from 'commander';
import { repeated } from '../../options.ts';

/** Adds the flags of a MasterSecretSource: the file, or shares in its place. */
export function addSecretOptions(command: Command): Command {
  return command
    .addOption(masterSecretOption())
    .addOption(
      new Option('--share <file>', 'a recovery share, in place of the master secret; repeat it for each')
        .argParser(repeated)
        .conflicts(['masterSecret', 'sharesPrompt']),
    )
    .addOption(
      new Option('--shares-prompt', 'ask for recovery shares, in place of the master secret').conflicts(
        'masterSecret',
      ),
    );
}

export function masterSecretOption(): Option {
  return new Option(
    '--master-secret <file>',
    `the cluster's master secret (default: ${MASTER_SECRET_FILE} of the workspace)`,
  );
}
