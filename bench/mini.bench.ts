import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MARKER_FILE } from '@asterism/cli/flows/mini-marker';
import type { Bench, Row } from './bench.ts';

const ASTERISM = join(import.meta.dirname, '../asterism');
const TIMEOUT_MS = 60 * 60_000;
/** `mini up` with everything built shall take less than this. */
const AIM_S = 120;
/** Phases that make what later runs find in the cache. */
const BUILDING = /^(components of |node image)/;

/** Time of `mini up` (one control plane, one worker) by phase, on a cluster of its own that is removed again. */
export default {
  name: 'mini',
  async run({ progress }) {
    if (process.getuid?.() !== 0) throw new Error('local nodes need root');
    const workspace = await mkdtemp(join(tmpdir(), 'asterism-bench-mini-'));
    try {
      progress('mini up');
      await asterism(['--workspace', workspace, 'mini', 'up']);
      const path = join(workspace, MARKER_FILE);
      const { phases }: { phases: { phase: string; milliseconds: number }[] } = JSON.parse(
        readFileSync(path, 'utf8'),
      );
      const rows: Row[] = phases.map(({ phase, milliseconds }) => ({
        what: phase,
        value: milliseconds / 1000,
        unit: 's',
        ...(phase.startsWith('init ') ? { note: 'part of init' } : {}),
      }));
      // Parts are contained in their phase.
      const counted = phases.filter(({ phase }) => !phase.startsWith('init ') && !BUILDING.test(phase));
      const total = counted.reduce((sum, { milliseconds }) => sum + milliseconds, 0) / 1000;
      const note = `with everything built; aim: under ${AIM_S} s`;
      return [...rows, { what: 'mini up', value: total, unit: 's', note }];
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

function asterism(args: readonly string[]): Promise<void> {
  const child = spawn(ASTERISM, args, { stdio: ['ignore', 'ignore', 'inherit'], timeout: TIMEOUT_MS });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0) resolve();
      else reject(new Error(`asterism ${args.slice(2).join(' ')} exited with ${code}`));
    });
  });
}
