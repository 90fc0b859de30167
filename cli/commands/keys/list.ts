import { Command } from 'commander';
import { contextOf } from '../../context.ts';
import { adminApi } from '../../flows/admin-api.ts';
import { type DiskRecord, diskBindings } from '../../flows/disk-bindings.ts';
import { type ListedHome, type ListedKey, listHomes, listStoredKeys } from '../../flows/list-keys.ts';
import { integer } from '../../options.ts';

export function listCommand(): Command {
  return new Command('list')
    .description(
      'Where the keys of the cluster come from, which disk has which, and what is stored; no key itself.',
    )
    .option('--limit <n>', 'stored keys to list at most', integer(1, 1_000_000), 1000)
    .action(async ({ limit }: { limit: number }, command: Command) => {
      const { workspace, out, signal } = contextOf(command);
      const state = await workspace.requireState();
      const api = await adminApi(workspace);
      const homes = await listHomes(api, signal);
      const disks = await diskBindings(api).list(signal);
      const keys = await listStoredKeys(state, workspace, api, limit, signal);
      const lines = [
        ...homes.map(describeHome),
        '',
        ...disks.map(describeDisk),
        ...(keys.length > 0 ? ['', ...keys.map(describeKey)] : []),
        ...(keys.length === limit ? [`The first ${limit} stored keys are listed; --limit lists more.`] : []),
      ];
      out.result({ homes, disks, storedKeys: keys }, lines.join('\n'));
    });
}

function describeHome({ generation, kms, storage }: ListedHome): string {
  return `generation ${generation}: ${kms}, ${storage}`;
}

function describeDisk({ diskUuid, instanceName, key, nextKey }: DiskRecord): string {
  const change = nextKey === undefined ? '' : `, changing to ${nextKey}`;
  return `disk ${diskUuid} of ${instanceName}: key ${key}${change}`;
}

function describeKey({ id, generation, kek, error }: ListedKey): string {
  if (error !== undefined) return `${id}: DAMAGED: ${error}`;
  return `${id}: ${generation === null ? 'as v2.6 wrote it' : `generation ${generation}`}, wrapped by ${kek}`;
}
