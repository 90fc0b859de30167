import { resolve } from 'node:path';
import { Workspace } from '@asterism/config/workspace';
import type { Command } from 'commander';
import { interruptSignal } from './interrupt.ts';
import { Output, type OutputFormat } from './output.ts';
import { Progress } from './progress.ts';

/** Flags that every command understands. */
export interface GlobalOptions {
  readonly workspace: string;
  readonly output: OutputFormat;
  readonly debug: boolean;
  readonly force: boolean;
}

/** What a command works with. */
export interface Context {
  readonly workspace: Workspace;
  readonly out: Output;
  readonly progress: Progress;
  readonly force: boolean;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

/** Made from the global flags as parsed for `command`. */
export function contextOf(command: Command): Context {
  const options = command.optsWithGlobals<GlobalOptions>();
  return {
    workspace: new Workspace(resolve(options.workspace)),
    out: new Output(options.output),
    progress: new Progress(),
    force: options.force,
    signal: interruptSignal(),
  };
}
