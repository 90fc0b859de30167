// Removes what runs of scenarios left: clusters that were kept (--keep), and those of runs that were killed; and those of
// tests of the local provider that were killed.
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { abandonedScratches, removeScratch, removeTestClusters } from './scratch.ts';

for (const folder of [join(tmpdir(), 'asterism-e2e'), ...abandonedScratches()]) {
  if (!removeScratch(folder)) process.exitCode = 1;
}
if (!removeTestClusters()) process.exitCode = 1;
