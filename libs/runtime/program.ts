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
  /** The program prints secrets: nothing of its output goes into an error. */
  readonly secretOutput?: boolean;
}

export interface ProgramResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program could not be started, was killed, or answered with a code that its caller does not accept. */
export class ProgramError extends AsterismError {
  // Private: a log prints every enumerable field of an error, and nobody has looked through this output for secrets.
  readonly #result: ProgramResult | undefined;

  constructor(code: string, message: string, options?: { cause?: unknown; result?: ProgramResult }) {
    super(code, message, options);
    this.#result = options?.result;
  }

  /** What the program said until then. Undefined where it did not start, or where its output is secret. */
  get result(): ProgramResult | undefined {
    return this.#result;
  }
}

/** Who still holds a program's output when it has ended is a descendant that outlives it: its output is not waited for. */
const OUTPUT_ENDS_MS = 1000;

/** Folders that programs are looked for in; what the cluster's components bring comes first. */
export const PROGRAM_PATH =
  '/run/state/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/cni/bin';

/**
 * Runs a program to its end, in its own process group so that a kill reaches its children too. A descendant that has
 * left the group and keeps the output open delays the answer by no more than a second, after an exit as after a kill.
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
    const notStarted = (cause: Error): void =>
      reject(new ProgramError('ERR_PROGRAM_START', `${file} cannot be started: ${cause.message}`, { cause }));
    let child: ChildProcess;
    try {
      child = spawn(file, args, {
        env: options.env ?? { PATH: PROGRAM_PATH, LC_ALL: 'C' },
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
        stdio: ['pipe', 'pipe', 'pipe'],
        detached: true,
      });
    } catch (cause) {
      notStarted(cause as Error);
      return;
    }
    const { stdin, stdout, stderr } = child;
    if (stdin === null || stdout === null || stderr === null || child.pid === undefined) {
      child.once('error', notStarted);
      return;
    }

    let ended: { readonly code: number | null; readonly signal: string | null } | undefined;
    let killedFor: { readonly code: string; readonly why: string } | undefined;
    let grace: NodeJS.Timeout | undefined;
    const limit = options.maxOutputBytes ?? 1 << 20;
    const output = [collect(stdout, limit, options.onLine), collect(stderr, limit, options.onLine)] as const;

    const settle = (): void => {
      clearTimeout(timer);
      clearTimeout(grace);
      options.signal?.removeEventListener('abort', onAbort);
      for (const stream of [stdin, stdout, stderr]) stream.destroy();
      const result = { code: ended?.code ?? -1, stdout: output[0](), stderr: output[1]() };
      const fail = (code: string, why: string): void =>
        reject(
          new ProgramError(
            code,
            `${file} ${args[0] ?? ''} ${why}`,
            options.secretOutput ? undefined : { result },
          ),
        );
      if (killedFor !== undefined) fail(killedFor.code, killedFor.why);
      else if (ended?.signal) fail('ERR_PROGRAM_SIGNAL', `was ended by ${ended.signal}`);
      else resolve(result);
    };
    // Not from the timer itself: what is in the pipes already is read before, also where this process was held up.
    const settleSoon = (): void => {
      grace ??= setTimeout(() => setImmediate(settle), OUTPUT_ENDS_MS);
    };
    const kill = (code: string, why: string): void => {
      // Its process group's number may be another's once it has ended.
      if (ended !== undefined || killedFor !== undefined) return;
      killedFor = { code, why };
      killGroup(child);
      settleSoon();
    };
    const timer = setTimeout(
      () => kill('ERR_PROGRAM_TIMEOUT', `did not end within ${options.timeoutMs} ms`),
      options.timeoutMs,
    );
    const onAbort = (): void => kill('ERR_PROGRAM_ABORTED', 'was stopped: the caller gave up');
    options.signal?.addEventListener('abort', onAbort, { once: true });

    // A program that exits before it has read its input breaks the pipe; its exit code says what went wrong.
    stdin.on('error', () => {});
    stdin.end(options.stdin ?? new Uint8Array());
    child.on('exit', (code, signal) => {
      ended = { code, signal };
      settleSoon();
    });
    child.on('close', settle);
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
  if (result.code === 0) return result.stdout;
  const what = `${file} ${args.slice(0, 3).join(' ')} exited with ${result.code}`;
  if (options.secretOutput) {
    throw new ProgramError('ERR_PROGRAM_FAILED', `${what}; what it printed may be secret and is not shown`);
  }
  const said = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-12).join('\n');
  throw new ProgramError('ERR_PROGRAM_FAILED', `${what}: ${said}`, { result });
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
