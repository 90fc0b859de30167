// Where the clusters of a run of scenarios live. Every run has a folder of its own, so that neither another run at the
// same time nor what a killed one left behind can be taken for its clusters.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ASTERISM = join(import.meta.dirname, '../asterism');
const PREFIX = 'asterism-e2e-';

/** A new folder for this process's run; with ASTERISM_E2E_KEEP=1 the one that runs share and that is kept. */
export function newScratch(): string {
  if (process.env.ASTERISM_E2E_KEEP === '1') return join(tmpdir(), 'asterism-e2e');
  return mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`));
}

/** Folders of runs that ended without removing them: their process was killed, or the machine was restarted. */
export function abandonedScratches(): string[] {
  return readdirSync(tmpdir())
    .filter((name) => name.startsWith(PREFIX) && !isRunning(name.slice(PREFIX.length).split('-')[0]!))
    .map((name) => join(tmpdir(), name));
}

function isRunning(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('tools/test.ts');
  } catch {
    return false;
  }
}

/** Removes what tests of the local provider left that were killed: no workspace names it. @returns whether nothing is left */
export function removeTestClusters(): boolean {
  // Only root has made any.
  if (process.getuid?.() !== 0) return true;
  const script = join(import.meta.dirname, '../providers/local/abandoned.fixture.ts');
  return spawnSync(process.execPath, [script], { stdio: 'inherit', timeout: 300_000 }).status === 0;
}

/** Terminates every cluster in a folder of scenarios and removes the folder. @returns whether nothing is left */
export function removeScratch(folder: string): boolean {
  if (!existsSync(folder)) return true;
  let clean = true;
  for (const name of readdirSync(folder)) {
    const workspace = join(folder, name);
    if (!existsSync(join(workspace, 'asterism-state.json'))) continue;
    const args = ['--workspace', workspace, 'terminate', '--yes'];
    const { status } = spawnSync(ASTERISM, args, {
      stdio: ['ignore', 'ignore', 'inherit'],
      timeout: 180_000,
    });
    if (status === 0) continue;
    console.error(`e2e: ${workspace} could not be terminated`);
    clean = false;
  }
  if (clean) rmSync(folder, { recursive: true });
  return clean;
}
