import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

const run = promisify(execFile);
const BUILD_TIMEOUT_MS = 4 * 60_000;
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
 * Builds testkit/go/<name> with the machine's Go.
 *
 * @returns the program, or why there is none (no Go, too old a Go, modules not reachable): the reason to skip
 */
export function buildGoPeer(
  name: 'atls-peer' | 'grpc-peer' | 'tpm-peer' | 'attest-peer',
): { program: string } | { skip: string } {
  const folder = join(import.meta.dirname, 'go', name);
  if (spawnSync('go', ['version']).error !== undefined)
    return { skip: `NOT TESTED against Go: this machine has no go, so ${name} cannot be built` };
  const out = mkdtempSync(join(tmpdir(), 'asterism-go-'));
  process.on('exit', () => rmSync(out, { recursive: true, force: true }));
  const program = join(out, name);
  const built = spawnSync('go', ['build', '-o', program, '.'], {
    cwd: folder,
    encoding: 'utf8',
    timeout: BUILD_TIMEOUT_MS,
  });
  if (built.status === 0) return { program };
  if (/requires go|toolchain|dial tcp|no such host|i\/o timeout|invalid go version/.test(built.stderr))
    return {
      skip: `NOT TESTED against Go: ${name} cannot be built here: ${built.stderr.trim().slice(0, 200)}`,
    };
  throw new Error(`go build of ${name} failed: ${built.stderr}`);
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
