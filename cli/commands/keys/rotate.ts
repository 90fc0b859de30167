import { clusterIdPcr } from '@asterism/attestation/cluster-id';
import { fromHex } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import { Command } from 'commander';
import { type Context, contextOf } from '../../context.ts';
import { gravest } from '../../exit-codes.ts';
import { type AdminApi, adminApi } from '../../flows/admin-api.ts';
import { diskBindings } from '../../flows/disk-bindings.ts';
import { type DiskOutcome, type DiskPlan, rotateDisks } from '../../flows/rotate-disk.ts';
import { DISK_PORT } from '../../flows/sync-disk.ts';
import type { LoadParts, Parts } from '../../parts.ts';
import { rotateKekCommand } from './rotate-kek.ts';

export function rotateCommand(load: LoadParts): Command {
  return new Command('rotate')
    .description('Change keys while the cluster runs.')
    .addCommand(rotateKekCommand(load))
    .addCommand(
      new Command('disk')
        .description("Change the keys of nodes' state disks while they run.")
        .argument('[node...]', 'nodes, as status calls them')
        .option('--all', 'every node of the state file', false)
        .addHelpText(
          'after',
          `
Each node gets a key of its own from the cluster, proves that it opens the disk, and only then gives the old one up.
A change that was cut off is completed by the next call. The key with which the data are encrypted stays: who has the
old key and a copy of the disk can read that copy.`,
        )
        .action(async (names: string[], { all }: { all: boolean }, command: Command) => {
          const context = contextOf(command);
          const parts = await load();
          const disks = await context.progress.phase('rotate disk', async (onStep) =>
            rotateDisks({
              ...(await diskPlan(context, parts, await adminApi(context.workspace), all ? undefined : names)),
              onStep,
            }),
          );
          process.exitCode = gravest(disks.map(({ exitCode }) => exitCode));
          const trust = parts.trustStatement(await context.workspace.config());
          context.out.result({ disks, trust }, [...disks.map(describeDisk), trust].join('\n'));
        }),
    );
}

/**
 * What the flows of disks need of a workspace.
 * @param names of nodes; undefined: every node
 * @throws AsterismError ERR_NO_NODES | ERR_UNKNOWN_NODE | ERR_NOT_INITIALIZED
 */
export async function diskPlan(
  { workspace, signal }: Context,
  parts: Parts,
  api: AdminApi,
  names: readonly string[] | undefined,
): Promise<Omit<DiskPlan, 'onStep'>> {
  const state = await workspace.requireState();
  if (state.clusterId === undefined)
    throw new AsterismError('ERR_NOT_INITIALIZED', 'this cluster is not initialised yet: run asterism init');
  if (names?.length === 0)
    throw new AsterismError('ERR_NO_NODES', 'name the nodes whose disks are meant, or give --all');
  const known = state.nodes.map(({ name }) => name);
  const unknown = names?.filter((name) => !known.includes(name)) ?? [];
  if (unknown.length > 0)
    throw new AsterismError(
      'ERR_UNKNOWN_NODE',
      `there is no node ${unknown.join(', ')}; there are ${known.join(', ')}`,
    );
  return {
    nodes: state.nodes
      .filter(({ name }) => names === undefined || names.includes(name))
      .map(({ name, address }) => ({ name, host: address, port: DISK_PORT })),
    bindings: diskBindings(api),
    verifier: parts.verifier(await workspace.config(), await clusterIdPcr(fromHex(state.clusterId))),
    signal,
  };
}

/** One disk on a line, for a person. */
export function describeDisk({ node, outcome, diskUuid, from, to, error }: DiskOutcome): string {
  switch (outcome) {
    case 'changed':
      return `${node}: disk ${diskUuid} has key ${to} now${from === undefined ? '' : `, instead of ${from}`}`;
    case 'resumed':
      return `${node}: an earlier change of disk ${diskUuid} is complete: it has key ${to} now`;
    case 'unchanged':
      return `${node}: disk ${diskUuid} keeps key ${to}`;
    case 'failed':
      return `${node}: FAILED: ${error}`;
  }
}
