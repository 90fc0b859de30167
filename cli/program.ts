import { Command, Option } from 'commander';
import { componentsCommand } from './commands/components.ts';
import { configCommand } from './commands/config.ts';
import { createCommand } from './commands/create.ts';
import { imageCommand } from './commands/image.ts';
import { initCommand } from './commands/init.ts';
import { keysCommand } from './commands/keys.ts';
import { localCommand } from './commands/local.ts';
import { miniCommand } from './commands/mini.ts';
import { recoverCommand } from './commands/recover.ts';
import { statusCommand } from './commands/status.ts';
import { terminateCommand } from './commands/terminate.ts';
import { verifyCommand } from './commands/verify.ts';
import { versionCommand } from './commands/version.ts';
import type { LoadParts } from './parts.ts';
import { versionLine } from './version.ts';

/** The whole command line. Commands load what they need when they run, so that help is quick. */
export function buildProgram(load: LoadParts): Command {
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
  for (const command of [
    miniCommand(load),
    configCommand(load),
    createCommand(load),
    initCommand(load),
    statusCommand(load),
    verifyCommand(load),
    recoverCommand(load),
    terminateCommand(load),
    keysCommand(load),
    componentsCommand(load),
    imageCommand(load),
    localCommand(load),
    versionCommand(),
  ]) {
    program.addCommand(command);
  }
  // For whoever tries it first; what the help names is the command.
  program.version(versionLine(), '--version');
  program.options.find((option) => option.long === '--version')?.hideHelp();
  inherit(program);
  return program;
}

/** Commander hands settings down one level, and only to commands that are added afterwards. */
function inherit(parent: Command): void {
  for (const child of parent.commands) {
    child.copyInheritedSettings(parent);
    inherit(child as Command);
  }
}
