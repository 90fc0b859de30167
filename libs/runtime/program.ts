import { type ChildProcess, spawn } from 'node:child_process';
import { AsterismError } from '@asterism/errors/errors';

export interface ProgramOptions {
  /** Fed to standard input, which is then closed. Secrets go this way, never by argument or environment. */
  readonly stdin?: Uint8Array;
  /** Milliseconds until the program is killed. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  /** The whole environment. Default: PATH and LC_ALL=C only. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Bytes kept of each output stream (the last ones). Default 1 MiB. */
  readonly maxOutputBytes?: number;
  /** Called for each line of either output stream. */
  readonly onLine?: (line: string) => void;
}

export interface ProgramResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program could not be started, was killed, or answered with a code that its caller does not accept. */
export class ProgramError extends AsterismError {
  readonly result: ProgramResult | undefined;

  constructor(code: string, message: string, options?: { cause?: unknown; result?: ProgramResult }) {
    super(code, message, options);
    this.result = options?.result;
  }
}

/** Folders that programs are looked for in; what the cluster's components bring comes first. */
export const PROGRAM_PATH =
  '/run/state/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/cni/bin';

/**
 * Runs a program to its end, in its own process group so that a kill reaches its children too.
 * @returns whatever the exit code; see {@link runChecked} for the strict form
 * @throws ProgramError ERR_PROGRAM_START, ERR_PROGRAM_TIMEOUT, ERR_PROGRAM_ABORTED, ERR_PROGRAM_SIGNAL
 */
export function runProgram(
  file: string,
  args: readonly string[],
  options: ProgramOptions,
): Promise<ProgramResult> {
  return new Promise((resolve, reject) => {
    if (options.signal?.aborted) {
      reject(new ProgramError('ERR_PROGRAM_ABORTED', `${file} was not started: the caller gave up`));
      return;
    }
    const child = spawn(file, args, {
      env: options.env ?? { PATH: PROGRAM_PATH, LC_ALL: 'C' },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    let killedFor: { code: string; why: string } | undefined;
    const kill = (code: string, why: string): void => {
      killedFor ??= { code, why };
      killGroup(child);
    };
    const timer = setTimeout(
      () => kill('ERR_PROGRAM_TIMEOUT', `did not end within ${options.timeoutMs} ms`),
      options.timeoutMs,
    );
    const onAbort = (): void => kill('ERR_PROGRAM_ABORTED', 'was stopped: the caller gave up');
    options.signal?.addEventListener('abort', onAbort, { once: true });

    const limit = options.maxOutputBytes ?? 1 << 20;
    const stdout = collect(child.stdout!, limit, options.onLine);
    const stderr = collect(child.stderr!, limit, options.onLine);
    // A program that exits before it has read its input breaks the pipe; its exit code says what went wrong.
    child.stdin!.on('error', () => {});
    child.stdin!.end(options.stdin ?? new Uint8Array());

    const settle = (finish: () => void): void => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', onAbort);
      finish();
    };
    child.on('error', (cause) =>
      settle(() =>
        reject(
          new ProgramError('ERR_PROGRAM_START', `${file} cannot be started: ${cause.message}`, { cause }),
        ),
      ),
    );
    child.on('close', (code, signal) =>
      settle(() => {
        const result = { code: code ?? -1, stdout: stdout(), stderr: stderr() };
        if (killedFor !== undefined) {
          reject(new ProgramError(killedFor.code, `${file} ${args[0] ?? ''} ${killedFor.why}`, { result }));
        } else if (signal !== null) {
          reject(
            new ProgramError('ERR_PROGRAM_SIGNAL', `${file} ${args[0] ?? ''} was ended by ${signal}`, {
              result,
            }),
          );
        } else resolve(result);
      }),
    );
  });
}

/**
 * Runs a program that must succeed.
 * @returns its standard output
 * @throws ProgramError ERR_PROGRAM_FAILED with the last lines of its output when it exits other than 0
 */
export async function runChecked(
  file: string,
  args: readonly string[],
  options: ProgramOptions,
): Promise<string> {
  const result = await runProgram(file, args, options);
  if (result.code !== 0) {
    const said = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-12).join('\n');
    throw new ProgramError(
      'ERR_PROGRAM_FAILED',
      `${file} ${args.slice(0, 3).join(' ')} exited with ${result.code}: ${said}`,
      { result },
    );
  }
  return result.stdout;
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    child.kill('SIGKILL');
  }
}

function collect(
  stream: NodeJS.ReadableStream,
  limit: number,
  onLine?: (line: string) => void,
): () => string {
  let kept = '';
  let partial = '';
  stream.setEncoding('utf8');
  stream.on('data', (chunk: string) => {
    kept = (kept + chunk).slice(-limit);
    if (onLine === undefined) return;
    const lines = (partial + chunk).split('\n');
    partial = lines.pop()!.slice(-8192);
    for (const line of lines) if (line !== '') onLine(line);
  });
  stream.on('end', () => {
    if (partial !== '') onLine?.(partial);
  });
  return () => kept;
}
