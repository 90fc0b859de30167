import { Command } from 'commander';
import { contextOf } from '../../context.ts';
import { adminApi } from '../../flows/admin-api.ts';
import { retiredSecretFile, runRotateKek } from '../../flows/run-rotate-kek.ts';
import type { LoadParts } from '../../parts.ts';
import { describeDisk, diskPlan } from './rotate.ts';

export function rotateKekCommand(load: LoadParts): Command {
  return new Command('kek')
    .description('Change the key encryption key of the cluster while it runs.')
    .option(
      '--give-up-missing',
      'with a master secret: lose the disks of machines that the state file does not name any more',
      false,
    )
    .addHelpText(
      'after',
      `
With kms.type: cluster a new master secret is made, every disk gets a key of it, and the former one opens nothing any
more. With an external KMS every stored key is wrapped by the key that the configuration names now: the same key (to
use its newest version) or another one, of another KMS too.

The former key stays in use until each key is re-wrapped and proven. A rotation that was cut off goes on when it is run
again.`,
    )
    .action(async ({ giveUpMissing }: { giveUpMissing: boolean }, command: Command) => {
      const context = contextOf(command);
      const parts = await load();
      const api = await adminApi(context.workspace);
      const disks = await diskPlan(context, parts, api, undefined);
      const result = await runRotateKek(context, api, disks, { giveUpMissing });
      const { generation, rewrapped } = result;
      const { keyHome } = await context.workspace.requireState();
      const former =
        keyHome === undefined
          ? `The former master secret is ${context.workspace.path(retiredSecretFile(generation - 1))}: it opens ` +
            'nothing of the cluster any more, only older copies of disks. Make new recovery shares: asterism keys split'
          : `${rewrapped} stored keys are wrapped by it and proven. The former key may be disabled at its KMS now.`;
      const trust = parts.trustStatement(await context.workspace.config());
      context.out.result(
        { ...result, trust },
        [
          `The key encryption key is of generation ${generation} now.`,
          former,
          ...result.disks.map(describeDisk),
          trust,
        ].join('\n'),
      );
    });
}
