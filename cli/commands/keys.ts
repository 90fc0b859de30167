import { Command } from 'commander';
import { combineCommand } from './keys/combine.ts';
import { deriveCommand } from './keys/derive.ts';
import { escrowCommand, unescrowCommand } from './keys/escrow.ts';
import { splitCommand } from './keys/split.ts';

export function keysCommand(): Command {
  return new Command('keys')
    .description('Work with the keys of a cluster.')
    .addCommand(deriveCommand())
    .addCommand(splitCommand())
    .addCommand(combineCommand())
    .addCommand(escrowCommand())
    .addCommand(unescrowCommand());
}
