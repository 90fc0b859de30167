import { type ProgramOptions, runChecked } from '@asterism/runtime/program';

/**
 * Runs a program that must succeed, and of which nothing may outlive this process. When it is stopped, when this process
 * is killed with no time to say so, or when it fails, the kernel ends it with every descendant. Whom root runs has
 * processes and mounts of its own: what it has mounted is gone with it, and was never seen outside.
 *
 * @returns its standard output
 * @throws ProgramError as {@link runChecked}
 */
export function runTethered(command: readonly string[], options: ProgramOptions): Promise<string> {
  const own = [
    'unshare',
    '--pid',
    '--fork',
    '--kill-child',
    '--mount',
    '--propagation',
    'private',
    '--mount-proc',
  ];
  const confined = process.getuid?.() === 0 ? own : [];
  return runChecked('setpriv', ['--pdeathsig', 'KILL', ...confined, ...command], options);
}
