import { UnreachableError } from '@asterism/errors/errors';
import { Command } from 'commander';
import { contextOf } from '../context.ts';
import { RECOVERY_PORT, recoverNodes } from '../flows/recover-nodes.ts';
import { type RecoverySource, recoveryHomes } from '../flows/recovery-homes.ts';
import { hex32, hostAndPort, integer } from '../options.ts';
import type { LoadParts } from '../parts.ts';
import { addSecretOptions } from './keys/secret-options.ts';

interface RecoverOptions extends RecoverySource {
  readonly endpoint?: { host: string; port: number };
  readonly timeout: number;
}

export function recoverCommand(load: LoadParts): Command {
  const command = new Command('recover')
    .description(
      'Give control-plane nodes that rebooted the way to their disk keys, where no control plane runs.',
    )
    .option(
      '-e, --endpoint <host[:port]>',
      `recover this node only (default: every control plane of the state file; port ${RECOVERY_PORT})`,
      hostAndPort(RECOVERY_PORT),
    );
  return addSecretOptions(command)
    .option(
      '--cluster-id <hex>',
      'with an external KMS and without a state file: the id of the cluster (64 digits)',
      hex32,
    )
    .option(
      '--generation <n>',
      'with --cluster-id: how often the key encryption key was rotated, plus 1',
      integer(1, 999_999_999),
      1,
    )
    .option(
      '--timeout <seconds>',
      'how long to wait for a node that asks, anew after each one',
      integer(1, 3600),
      60,
    )
    .action(async (options: RecoverOptions, command: Command) => {
      const context = contextOf(command);
      const { workspace, out, progress, signal } = context;
      const parts = await load();
      const config = await workspace.config();
      const homes = await recoveryHomes(context, config, options);
      const targets =
        options.endpoint !== undefined
          ? [{ name: options.endpoint.host, ...options.endpoint }]
          : (await workspace.requireState()).nodes
              .filter((node) => node.role === 'ControlPlane')
              .map(({ name, address }) => ({ name, host: address, port: RECOVERY_PORT }));

      const { recovered, silent } = await progress.phase('recover', (detail) =>
        recoverNodes({
          targets,
          // A node that waits for recovery has not been marked since it booted.
          verifier: parts.verifier(config, new Uint8Array(32)),
          homes,
          signal,
          patienceMs: options.timeout * 1000,
          onRecovered: (name) => detail(`${name} has opened its disk`),
          onWaiting: (names) => detail(`waiting for ${names.join(', ')} to ask`),
        }),
      );
      if (recovered.length === 0) {
        throw new UnreachableError(
          'No control-plane node in need of recovery was found. ' +
            `Nobody answered at port ${RECOVERY_PORT} of ${silent.join(', ')}; see: asterism status`,
          { code: 'ERR_NOBODY_ASKS' },
        );
      }
      const nodes = recovered.length === 1 ? 'node' : 'nodes';
      const trust = parts.trustStatement(config);
      out.result(
        { recovered, silent, trust },
        `Recovered ${recovered.length} control-plane ${nodes}.` +
          (silent.length === 0 ? '' : ` These did not ask for it: ${silent.join(', ')}`) +
          `\n${trust}`,
      );
    });
}
