import { AsterismError } from '@asterism/errors/errors';
import { ProgramError, type ProgramResult, runProgram } from '@asterism/runtime/program';

/** What cryptsetup could not do with the state disk. */
export class DiskError extends AsterismError {}

/** cryptsetup(8), RETURN CODES: "2 no permission (bad passphrase)". */
const EXIT_WRONG_KEY = 2;

/** The cryptsetup program. Keys reach it through standard input only. */
export class Cryptsetup {
  readonly #timeoutMs: number;

  /** @param timeoutMs for one command */
  constructor(timeoutMs = 60_000) {
    this.#timeoutMs = timeoutMs;
  }

  /** @throws DiskError ERR_DISK_PROGRAM it was not started, or stopped */
  async run(args: readonly string[], stdin: Uint8Array, signal?: AbortSignal): Promise<ProgramResult> {
    try {
      return await runProgram('cryptsetup', ['--batch-mode', ...args], {
        stdin,
        timeoutMs: this.#timeoutMs,
        ...(signal === undefined ? {} : { signal }),
      });
    } catch (cause) {
      if (cause instanceof ProgramError) throw new DiskError('ERR_DISK_PROGRAM', cause.message, { cause });
      throw cause;
    }
  }

  /** @throws DiskError ERR_DISK_WRONG_KEY, ERR_DISK it exited other than with 0 */
  async must(args: readonly string[], stdin: Uint8Array, signal?: AbortSignal): Promise<void> {
    const result = await this.run(args, stdin, signal);
    if (result.code !== 0) throw failure(args[0] ?? '', result);
  }

  /** Whether a key opens the header in a file, or one slot of it. Needs no device-mapper. */
  async opens(header: string, key: Uint8Array, slot?: number): Promise<boolean> {
    const args = ['open', '--test-passphrase', '--type', 'luks2', '--key-file', '-'];
    if (slot !== undefined) args.push('--key-slot', String(slot));
    const result = await this.run([...args, header], key);
    if (result.code !== 0 && result.code !== EXIT_WRONG_KEY) throw failure('open --test-passphrase', result);
    return result.code === 0;
  }
}

function failure(what: string, result: ProgramResult): DiskError {
  const code = result.code === EXIT_WRONG_KEY ? 'ERR_DISK_WRONG_KEY' : 'ERR_DISK';
  return new DiskError(
    code,
    `cryptsetup ${what} exited with ${result.code}: ${result.stderr.trim().slice(-500)}`,
  );
}
