import { mkdir, rmdir } from 'node:fs/promises';
import { equal } from '@asterism/bytes/bytes';
import { Workspace } from '@asterism/config/workspace';
import { AsterismError } from '@asterism/errors/errors';
import { ShareCollection } from '@asterism/shares/collection';
import type { SharedSecret } from '@asterism/shares/payload';
import { qrForTerminal, qrSvg } from '@asterism/shares/qr';
import { combineShares, splitSecret } from '@asterism/shares/split';
import { renderShare, shareCode } from '@asterism/shares/text';

/** A share as it is handed out. */
export interface PreparedShare {
  readonly index: number;
  readonly text: string;
  /** What its QR code holds. */
  readonly code: string;
  readonly title: string;
}

export interface SplitPlan {
  readonly secret: SharedSecret;
  /** 32 bytes. */
  readonly clusterId: Uint8Array;
  /** Name of the cluster, for people. */
  readonly name: string | undefined;
  readonly count: number;
  readonly threshold: number;
}

/** Splits, and proves that what is handed out gives the secret back. @throws AsterismError (ERR_SPLIT) */
export async function prepareShares(plan: SplitPlan): Promise<PreparedShare[]> {
  const { secret, clusterId, count, name } = plan;
  const shares = await splitSecret(secret, clusterId, plan);
  const prepared = shares.map((share) => ({
    index: share.index,
    text: renderShare(share, name),
    code: shareCode(share),
    title: `${name ?? 'asterism'}: recovery share ${share.index} of ${count}`,
  }));
  for (const { body } of shares) body.fill(0);
  await prove(
    plan,
    prepared.map(({ text }) => text),
  );
  await prove(
    plan,
    prepared.map(({ code }) => code),
  );
  return prepared;
}

/**
 * Writes a file for each share (mode 0600), and an SVG file with its QR code where that is wanted: all of them, or none.
 * What was written is read back and proven before it counts.
 *
 * @param folder is made where it does not exist
 * @throws WorkspaceError (ERR_EXISTS, ERR_WRITE)
 */
export async function writeShares(
  folder: string,
  plan: SplitPlan,
  shares: readonly PreparedShare[],
  qr: boolean,
): Promise<string[]> {
  const made = await mkdir(folder, { recursive: true, mode: 0o700 }).catch((cause: NodeJS.ErrnoException) => {
    throw new AsterismError('ERR_WRITE', `${folder} cannot be made: ${cause.code}`);
  });
  const files = new Workspace(folder);
  const written: string[] = [];
  const write = async (name: string, text: string) => {
    await files.create(name, text);
    written.push(name);
  };
  try {
    for (const share of shares) await write(shareFile(share.index, plan.count), share.text);
    if (qr)
      for (const { index, code, title } of shares)
        await write(shareFile(index, plan.count, 'svg'), qrSvg(code, title));
    const texts = shares.map(({ index }) => files.read(shareFile(index, plan.count)));
    await prove(
      plan,
      (await Promise.all(texts)).map((text) => text ?? ''),
    );
  } catch (error) {
    // Shares of a split that is not whole are of no use, and would be taken for good ones.
    for (const name of written) await files.remove(name).catch(() => {});
    if (made !== undefined) await rmdir(folder).catch(() => {});
    throw error;
  }
  return shares.map(({ index }) => files.path(shareFile(index, plan.count)));
}

/** The QR code of a share for a terminal, with a title. */
export function terminalQr({ code, title }: PreparedShare): string {
  return `${title}\n${qrForTerminal(code)}`;
}

function shareFile(index: number, count: number, extension: 'txt' | 'svg' = 'txt'): string {
  return `recovery-share-${index}-of-${count}.${extension}`;
}

/** The first and the last k of the texts give the secret, and every text is a share of this cluster. */
async function prove({ secret, clusterId, threshold }: SplitPlan, texts: readonly string[]): Promise<void> {
  for (const some of [texts.slice(0, threshold), texts.slice(-threshold), texts]) {
    const collection = new ShareCollection(clusterId);
    for (const [i, text] of some.entries()) collection.add(`share ${i + 1}`, text);
    const { shares, refused, foreign } = collection.take();
    const found = await combineShares(shares);
    const same =
      equal(found.key, secret.key) &&
      equal(found.salt, secret.salt) &&
      equal(found.measurementSecret ?? new Uint8Array(), secret.measurementSecret ?? new Uint8Array()) &&
      (found.generation ?? 1) === (secret.generation ?? 1);
    found.key.fill(0);
    if (!same || refused.length + foreign.length > 0)
      throw new AsterismError('ERR_SPLIT', 'the shares do not give the secret back; nothing was written');
  }
}
