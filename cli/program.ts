import { Command, Option } from 'commander';
import { configCommand } from './commands/config.ts';
import { versionCommand } from './commands/version.ts';

/** The whole command line. Commands load what they need when they run, so that help is quick. */
export function buildProgram(): Command {
  const program = new Command('asterism')
    .description('Confidential Kubernetes: clusters made of machines that prove what they booted.')
    .option('--workspace <dir>', "folder with the cluster's files", '.')
    .addOption(
      new Option('-o, --output <format>', 'form of the result').choices(['text', 'json']).default('text'),
    )
    .option('--debug', 'show stacks of errors and more detail', false)
    .option('--force', 'go on where only a precaution stands in the way; each command says which', false)
    .showHelpAfterError('(run with --help to see what is possible)')
    .addHelpText(
      'after',
      `
Exit codes: 0 done, 1 usage or failure, 2 evidence false, 3 policy not met, 4 not reachable.`,
    );
  for (const command of [configCommand(), versionCommand()]) {
    program.addCommand(command.copyInheritedSettings(program));
  }
  return program;
}
