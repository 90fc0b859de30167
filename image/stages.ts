import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Measurements } from '@asterism/attestation/measurements';
import { sha256OfFile } from '@asterism/kubernetes/components/cache';

/** What of an image's folder goes into which PCR, in the order of boot. */
export const STAGES = [
  { pcr: 4, file: 'boot.sh', description: 'boot stage' },
  { pcr: 12, file: 'cmdline', description: 'command line' },
  { pcr: 9, file: 'initrd.tar', description: 'initrd: disk-mapper, bootstrapper, disk-keeper' },
  { pcr: 11, file: 'node.squashfs', description: 'root file system' },
] as const;

export type StageFile = (typeof STAGES)[number]['file'];

/** PCRs that nothing of the image goes into, and that are enforced to say so. PCR 15: no member of a cluster yet. */
const ZERO_PCRS = [8, 13, 15] as const;

/** Digest of one stage as it is measured: of the file, but of the command line as the boot loader passes it. */
export async function stageDigest(file: StageFile, path: string): Promise<Uint8Array> {
  if (file !== 'cmdline') return new Uint8Array(Buffer.from(await sha256OfFile(path), 'hex'));
  const text = (await readFile(path, 'utf8')).trimEnd();
  return new Uint8Array(
    createHash('sha256')
      .update(Buffer.from(`${text}\0`, 'utf16le'))
      .digest(),
  );
}

/** PCRs (SHA-256) that a machine which boots this image will show, computed from its files. */
export async function predictMeasurements(folder: string): Promise<Measurements> {
  const values = new Map<number, Uint8Array>(ZERO_PCRS.map((pcr) => [pcr, new Uint8Array(32)]));
  for (const { pcr, file } of STAGES) {
    const before = values.get(pcr) ?? new Uint8Array(32);
    const digest = await stageDigest(file, join(folder, file));
    values.set(pcr, new Uint8Array(createHash('sha256').update(before).update(digest).digest()));
  }
  return new Map(
    [...values].sort(([a], [b]) => a - b).map(([pcr, expected]) => [pcr, { expected, warnOnly: false }]),
  );
}
