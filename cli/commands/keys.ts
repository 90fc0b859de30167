import { Command } from 'commander';
import type { LoadParts } from '../parts.ts';
import { auditCommand } from './keys/audit.ts';
import { combineCommand } from './keys/combine.ts';
import { deriveCommand } from './keys/derive.ts';
import { escrowCommand, unescrowCommand } from './keys/escrow.ts';
import { listCommand } from './keys/list.ts';
import { rotateCommand } from './keys/rotate.ts';
import { splitCommand } from './keys/split.ts';

export function keysCommand(load: LoadParts): Command {
  return new Command('keys')
    .description('Work with the keys of a cluster.')
    .addCommand(deriveCommand())
    .addCommand(splitCommand())
    .addCommand(combineCommand())
    .addCommand(escrowCommand())
    .addCommand(unescrowCommand())
    .addCommand(rotateCommand(load))
    .addCommand(listCommand())
    .addCommand(auditCommand());
}
