// Terminates every cluster that scenarios left in their scratch folder, and removes the folder.
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { asterism, SCRATCH } from './cluster.ts';

if (process.env.ASTERISM_E2E_KEEP === '1') {
  console.log(`e2e: clusters are kept, see ${SCRATCH}`);
} else if (existsSync(SCRATCH)) {
  for (const name of readdirSync(SCRATCH)) {
    const workspace = join(SCRATCH, name);
    if (!existsSync(join(workspace, 'asterism-state.json'))) continue;
    const { status, stderr } = await asterism(['terminate', '--yes'], { workspace, timeoutMs: 180_000 });
    if (status !== 0) {
      console.error(`e2e: ${workspace} could not be terminated:\n${stderr}`);
      process.exitCode = 1;
    }
  }
  if (process.exitCode !== 1) rmSync(SCRATCH, { recursive: true });
}
