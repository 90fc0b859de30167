import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { UnreachableError } from '@asterism/errors/errors';
import { goCommand } from '@asterism/kubernetes/components/toolchain';

const run = promisify(execFile);
const BUILD_TIMEOUT_MS = 10 * 60_000;
const ANSWER_TIMEOUT_MS = 15_000;

/** One line of JSON that a Go peer printed. */
export interface GoReport {
  readonly address?: string;
  readonly error?: string;
  readonly version?: string;
  readonly peer?: string;
  readonly echo?: string;
  readonly answer?: string;
  readonly calls?: number;
}

/**
 * Builds testkit/go/<name> with the Go toolchain that the project pins, so that no Go need be on the machine.
 *
 * @returns the program, or the reason to skip: the modules cannot be reached. Under continuous integration (CI=true)
 *   that is an error, so that a green run has spoken with Go.
 */
export async function buildGoPeer(
  name: 'atls-peer' | 'grpc-peer' | 'tpm-peer' | 'attest-peer',
): Promise<{ program: string } | { skip: string }> {
  const out = mkdtempSync(join(tmpdir(), 'asterism-go-'));
  process.on('exit', () => rmSync(out, { recursive: true, force: true }));
  const program = join(out, name);
  try {
    const go = await goCommand({ signal: AbortSignal.timeout(BUILD_TIMEOUT_MS), onDetail: () => {} });
    await run(go, ['build', '-o', program, '.'], {
      cwd: join(import.meta.dirname, 'go', name),
      env: { ...process.env, GOTOOLCHAIN: 'local', CGO_ENABLED: '0' },
      timeout: BUILD_TIMEOUT_MS,
    });
    return { program };
  } catch (error) {
    const unreachable =
      error instanceof UnreachableError ||
      /dial tcp|no such host|i\/o timeout|connection refused/.test((error as Error).message);
    if (!unreachable || process.env.CI !== undefined) throw error;
    return {
      skip: `NOT TESTED against Go: ${name} cannot be built: ${(error as Error).message.slice(0, 200)}`,
    };
  }
}

/** Runs the peer's client to its end. */
export async function goClient(program: string, args: readonly string[]): Promise<GoReport> {
  const { stdout } = await run(program, ['client', ...args], { timeout: ANSWER_TIMEOUT_MS });
  return JSON.parse(stdout) as GoReport;
}

/** The peer's server. */
export class GoServer {
  readonly #child: ChildProcess;
  readonly #reports: AsyncIterator<string>;
  readonly port: number;

  private constructor(child: ChildProcess, reports: AsyncIterator<string>, port: number) {
    this.#child = child;
    this.#reports = reports;
    this.port = port;
  }

  static async start(program: string, args: readonly string[] = []): Promise<GoServer> {
    const child = spawn(program, ['server', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    const reports = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    const { address = '' } = await nextReport(reports);
    return new GoServer(child, reports, Number(address.split(':').at(-1)));
  }

  /** What it says of the next connection. */
  next(): Promise<GoReport> {
    return nextReport(this.#reports);
  }

  stop(): void {
    this.#child.kill('SIGKILL');
  }
}

async function nextReport(reports: AsyncIterator<string>): Promise<GoReport> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('the Go peer said nothing')), ANSWER_TIMEOUT_MS);
  });
  try {
    const { value, done } = await Promise.race([reports.next(), late]);
    if (done) throw new Error('the Go peer ended');
    return JSON.parse(value) as GoReport;
  } finally {
    clearTimeout(timer);
  }
}
