import { constants } from 'node:fs';
import { chmod, copyFile, mkdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type Measured, writeEventLog } from '@asterism/eventlog/write';
import { STAGES, stageDigest } from '@asterism/image/stages';
import { withTpm } from '@asterism/tpm/with-tpm';
import type { LocalCluster, LocalNode } from './cluster.ts';
import { clusterFolder, nodeFolder, nodeRuntime } from './cluster.ts';
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
 * What is measured and used is the cluster's own copy of the image, which nobody else writes to: the cache may be
 * cleared, or built anew, under a running cluster.
 */
export async function measuredBoot(cluster: LocalCluster, node: LocalNode): Promise<MeasuredBoot> {
  const image = await ownCopy(cluster);
  const measured: Measured[] = [];
  for (const { pcr, file, description } of STAGES) {
    measured.push({ pcr, digest: await stageDigest(file, join(image, file)), description });
  }
  await withTpm(tpmAddress(cluster.uid, node.name), async (tpm) => {
    for (const { pcr, digest } of measured) await tpm.extendPcr(pcr, digest);
  });
  const eventLog = join(nodeRuntime(cluster.uid, node.name), 'event-log.bin');
  await rm(eventLog, { force: true });
  await writeFile(eventLog, writeEventLog(measured), { mode: 0o400 });
  const initrd = join(nodeFolder(cluster.uid, node.name), 'initrd');
  await rm(initrd, { recursive: true, force: true });
  await mkdir(initrd, { mode: 0o755 });
  await host('tar', '--no-same-owner', '-C', initrd, '-xf', join(image, 'initrd.tar'));
  return { bootScript: join(image, 'boot.sh'), squashfs: join(image, 'node.squashfs'), initrd };
}

/** The cluster's copy of its image, made at its first boot. */
async function ownCopy(cluster: LocalCluster): Promise<string> {
  const images = join(clusterFolder(cluster.uid), 'image');
  const own = join(images, basename(cluster.imageFolder));
  if ((await stat(own).catch(() => undefined)) !== undefined) return own;
  const part = `${own}.part`;
  await rm(part, { recursive: true, force: true });
  await mkdir(part, { recursive: true, mode: 0o700 });
  for (const { file } of STAGES) {
    await copyFile(join(cluster.imageFolder, file), join(part, file), constants.COPYFILE_FICLONE);
    await chmod(join(part, file), 0o400);
  }
  await rename(part, own);
  return own;
}
