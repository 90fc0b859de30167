import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Measured, writeEventLog } from '@asterism/eventlog/write';
import { STAGES, stageDigest } from '@asterism/image/stages';
import { withTpm } from '@asterism/tpm/with-tpm';
import type { LocalCluster, LocalNode } from './cluster.ts';
import { nodeFolder, nodeRuntime } from './cluster.ts';
import { host } from './host.ts';
import { tpmAddress } from './tpm.ts';

/** What a node is started with: exactly what was measured. */
export interface MeasuredBoot {
  readonly bootScript: string;
  readonly squashfs: string;
  /** Folder with the unpacked initrd stage. */
  readonly initrd: string;
}

/**
 * Hashes every stage of the image and extends it into the node's TPM before any of it runs; writes the event log.
 * The small stages are copied first, and the copy is what is measured and used.
 */
export async function measuredBoot(cluster: LocalCluster, node: LocalNode): Promise<MeasuredBoot> {
  const boot = join(nodeFolder(cluster.uid, node.name), 'boot');
  await rm(boot, { recursive: true, force: true });
  await mkdir(join(boot, 'initrd'), { recursive: true });
  for (const file of ['boot.sh', 'cmdline', 'initrd.tar'] as const)
    await copyFile(join(cluster.imageFolder, file), join(boot, file));
  const squashfs = join(cluster.imageFolder, 'node.squashfs');
  const measured: Measured[] = [];
  for (const { pcr, file, description } of STAGES) {
    const digest = await stageDigest(file, file === 'node.squashfs' ? squashfs : join(boot, file));
    measured.push({ pcr, digest, description });
  }
  await withTpm(tpmAddress(cluster.uid, node.name), async (tpm) => {
    for (const { pcr, digest } of measured) await tpm.extendPcr(pcr, digest);
  });
  await writeFile(join(nodeRuntime(cluster.uid, node.name), 'event-log.bin'), writeEventLog(measured), {
    mode: 0o400,
  });
  await host('tar', '-C', join(boot, 'initrd'), '-xf', join(boot, 'initrd.tar'));
  return { bootScript: join(boot, 'boot.sh'), squashfs, initrd: join(boot, 'initrd') };
}
