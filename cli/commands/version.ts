import { Command } from 'commander';
import { contextOf } from '../context.ts';
import { releaseVersion, versionLine } from '../version.ts';

export function versionCommand(): Command {
  return new Command('version')
    .description('Print the version of this command and of the Node that runs it.')
    .action(async (_options: object, command: Command) => {
      const { out } = contextOf(command);
      out.result({ asterism: releaseVersion(), node: process.versions.node }, versionLine());
    });
}
