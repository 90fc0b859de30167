import { CommanderError } from 'commander';
import { EXIT, exitCodeOf } from './exit-codes.ts';
import { describeError } from './output.ts';
import { buildProgram } from './program.ts';

const program = buildProgram(async () => (await import('./wiring.ts')).parts());
// Commander would end the process by itself, before buffered output is out.
const strict = (command: typeof program): void => {
  command.exitOverride();
  for (const child of command.commands) strict(child as typeof program);
};
strict(program);

// A closed pipe (`asterism … | head`) is no reason for a stack trace.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.done);
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // It has written its message already. Asking for help is no failure; not knowing what to run is.
    process.exitCode = error.exitCode === 0 ? EXIT.done : EXIT.failure;
  } else {
    process.stderr.write(`${describeError(error, program.opts<{ debug?: boolean }>().debug === true)}\n`);
    process.exitCode = exitCodeOf(error);
  }
}
