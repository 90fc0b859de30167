import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MARKER_FILE } from '@asterism/cli/flows/mini-marker';
import type { Bench } from './bench.ts';

const ASTERISM = join(import.meta.dirname, '../asterism');
const TIMEOUT_MS = 60 * 60_000;
/** `mini up` with everything built shall take less than this. */
const AIM_S = 120;
const AIM_MB = 120;
/** Services that live for the length of a boot: only a real one shows what they need. */
const OF_A_BOOT = ['disk-mapper', 'bootstrapper'];

/**
 * Time of `mini up` (one control plane, one worker) by phase, and what the services of a boot take meanwhile, on a
 * cluster of its own that is removed again.
 */
export default {
  name: 'mini',
  async run({ progress }) {
    if (process.getuid?.() !== 0) throw new Error('local nodes need root');
    const workspace = await mkdtemp(join(tmpdir(), 'asterism-bench-mini-'));
    try {
      progress('components and image, where they are not built');
      for (const what of ['components', 'image']) await asterism([what, 'build']);
      progress('mini up');
      const peaks = new PeakMemory(OF_A_BOOT);
      const started = performance.now();
      await asterism(['--workspace', workspace, 'mini', 'up']);
      const seconds = (performance.now() - started) / 1000;
      peaks.stop();
      const { phases }: { phases: { phase: string; milliseconds: number }[] } = JSON.parse(
        readFileSync(join(workspace, MARKER_FILE), 'utf8'),
      );
      return [
        ...phases.map(({ phase, milliseconds }) => ({
          what: phase,
          value: milliseconds / 1000,
          unit: 's',
          ...(phase.startsWith('init ') ? { note: 'part of init' } : {}),
        })),
        {
          what: 'mini up',
          value: seconds,
          unit: 's',
          note: `the whole command, with everything built; aim: under ${AIM_S} s`,
        },
        ...OF_A_BOOT.map((name) => ({
          what: `${name}, peak resident memory of the largest`,
          value: peaks.of(name) / 1e6,
          unit: 'MB',
          note: `aim: under ${AIM_MB} MB`,
        })),
      ];
    } finally {
      // Where it failed before it made anything, there is nothing that `mini down` would know of.
      if (existsSync(join(workspace, MARKER_FILE))) {
        progress('mini down');
        await asterism(['--workspace', workspace, 'mini', 'down']);
      }
      if (existsSync(workspace)) await rm(workspace, { recursive: true });
    }
  },
} satisfies Bench;

/** Looks again and again at the processes of this machine, the nodes' among them. */
class PeakMemory {
  readonly #names: readonly string[];
  readonly #peaks = new Map<string, number>();
  readonly #timer: NodeJS.Timeout;

  constructor(names: readonly string[]) {
    this.#names = names;
    this.#timer = setInterval(() => this.#look(), 200);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Bytes: the kernel's own high-water mark (VmHWM). @throws Error no such process was seen */
  of(name: string): number {
    const peak = this.#peaks.get(name);
    if (peak === undefined) throw new Error(`no ${name} was seen`);
    return peak;
  }

  #look(): void {
    for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        const name = this.#names.find((one) => command.includes(`/${one}.mjs`));
        if (name === undefined) continue;
        const kib = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
        this.#peaks.set(name, Math.max(this.#peaks.get(name) ?? 0, Number(kib) * 1024));
      } catch {
        // It has ended.
      }
    }
  }
}

function asterism(args: readonly string[]): Promise<void> {
  const child = spawn(ASTERISM, args, { stdio: ['ignore', 'ignore', 'inherit'], timeout: TIMEOUT_MS });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0) resolve();
      else reject(new Error(`asterism ${args.join(' ')} exited with ${code}`));
    });
  });
}
